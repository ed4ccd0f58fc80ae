"""Learns from a training log how its vectors are read: codebooks, and whether accounts share vectors that are alike."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from service.encoding.codewords import fields_of
from service.encoding.encoder import Encoder
from service.encoding.fields import Field, Popularity, Repeat
from service.encoding.reading import Reading
from service.encoding.vectors import Codebook, Vectors, matrix
from service.encoding.vocabulary import Vocabulary
from training.data.kinds import CATEGORICAL, IGNORE, VECTOR, Held
from training.data.log import Log
from training.data.vectors import width as width_of

logger = logging.getLogger(__name__)
PARTS, WORDS = 8, 32  # of a vector, and codewords of each; more find little more and cost more
SAMPLE = 20_000  # most vectors that a codebook is learned from
ALIKE = 0.25  # spread of the vectors' lengths, relative to their mean, up to which they tell nothing
SHARED = 0.5  # share of events from which it is said that accounts share what is alike
SMALL = 64  # kinds of vectors up to which they are categories, and no identifiers


def fit_codebooks(log: Log, least: int, old: Encoder | None = None) -> dict[str, Codebook]:
    """The codebook of each column of vectors.

    Args:
        log: the training part of the log.
        least: fewest sequences that are near a codeword.
        old: an encoder whose codebooks are kept.
    """
    known = old.reading.codebooks if old is not None else {}
    found: dict[str, Codebook] = {}
    for name, kind in log.kinds.items():
        if kind == VECTOR and log.events[name].null_count() < log.events.height:
            book = known.get(name) or _codebook(name, log, least)
            if book is None:
                logger.warning(
                    "column %r is left out: fewer than %d sequences hold a vector that is not zero", name, least
                )
            else:
                found[name] = book
    return found


def vector_fields(log: Log, books: Mapping[str, Codebook], least: int, old: Mapping[str, Field]) -> list[Field]:
    """The fields of vectors: the codewords of each, and what they are together where accounts share it.

    Args:
        log: the training part of the log.
        least: fewest sequences that hold a value which is learned.
        old: an encoder's fields by name, whose values are kept.
    """
    fields: list[Field] = [*fields_of(books)]
    for name in books:
        fields += _alike(name, log, least, old.get(name))
    return fields


def kinds_for_vectors(log: Log) -> Callable[[Log], Log]:
    """Learns codebooks from a log, and gives what puts a name in the place of each vector: the same for those alike."""
    books = fit_codebooks(log, 1)
    reading = Reading(log.reading.missing, log.reading.commas, books)

    def named(of: Log) -> Log:
        there = [name for name in books if name in of.events.columns]
        names = [pl.Series(name, reading.spelt(name, of.whole[0][name]), pl.String) for name in there]
        held = {name: Held(CATEGORICAL if name in books else IGNORE, "of vectors") for name in log.vectors}
        return Log.of(of.events.with_columns(names), of.reading, {**of.held, **held})

    return named if log.vectors else lambda of: of


def _codebook(name: str, log: Log, least: int) -> Codebook | None:
    """A codebook by k-means, in which each account counts once; None where too few accounts have vectors."""
    width = width_of(log.events.schema[name])
    vectors, at, _ = matrix(name, width, log.whole[0][name], log.reading.is_missing)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    good = np.flatnonzero((lengths > 0) & (lengths < np.inf))
    if len(good) > SAMPLE:
        good = np.sort(np.random.default_rng(0).choice(good, SAMPLE, replace=False))
    vectors, lengths, owner = vectors[good], lengths[good], _owners(log)[at[good]]
    if len(np.unique(owner)) < least:
        return None
    normed = bool(lengths.std() <= ALIKE * lengths.mean())
    scale = 1.0 if normed else float(np.sqrt((lengths.astype(np.float64) ** 2).mean()))
    d = -(-width // min(PARTS, width))
    scaled = vectors / (lengths[:, None] if normed else np.float32(scale))
    parts = [_words(scaled[:, k : k + d], owner, least) for k in range(0, width, d)]
    words = np.full((len(parts), max(map(len, parts)), d), np.nan, dtype=np.float16)
    for part, found in enumerate(parts):
        words[part, : len(found)] = np.pad(found, ((0, 0), (0, d - found.shape[1])))
    return Codebook(name, width, normed, scale, words)


def _words(part: Vectors, owner: NDArray[np.int64], least: int) -> Vectors:
    """Float32 (K, d): the means of what is alike in a part of the vectors, each of at least so many accounts."""
    count = min(WORDS, len(np.unique(part, axis=0)))
    weight = 1 / np.bincount(owner)[owner]
    means = KMeans(count, n_init=1, random_state=0).fit(part, sample_weight=weight)
    nearest = means.labels_
    held = [len(np.unique(owner[nearest == k])) >= least for k in range(count)]
    centres = means.cluster_centers_[held] if any(held) else part.mean(axis=0, keepdims=True)
    nearest = ((part[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    return np.stack([_mean_of_means(part[nearest == k], owner[nearest == k]) for k in range(len(centres))])


def _mean_of_means(some: Vectors, owner: NDArray[np.int64]) -> Vectors:
    """The mean over accounts of each one's mean, which no account decides by having many vectors."""
    _, of = np.unique(owner, return_inverse=True)
    weight = 1 / np.bincount(of)[of]
    mean: Vectors = np.average(some, axis=0, weights=weight).astype(np.float32)
    return mean


def _alike(name: str, log: Log, least: int, old: Field | None) -> list[Field]:
    """What vectors are as a whole, so that copies are known; nothing where accounts share hardly any."""
    given = log.reading.spelt(name, log.whole[0][name])
    owner = _owners(log).tolist()
    holders = Counter(kind for _, kind in {(of, kind) for of, kind in zip(owner, given, strict=True) if kind})
    present = [str(kind) for kind in given if kind]
    if not isinstance(old, Vocabulary) and sum(holders[kind] > 1 for kind in present) < SHARED * len(present):
        return []
    values = {str(kind) for kind, count in holders.items() if count >= least}
    values |= set(old.values) if isinstance(old, Vocabulary) else set()
    vocabulary = Vocabulary(
        name, sorted(values), old.identifier if isinstance(old, Vocabulary) else len(holders) > SMALL
    )
    if not vocabulary.identifier:
        return [vocabulary]
    levels = [max(holders[value], 1).bit_length() - 1 for value in vocabulary.values]
    return [
        vocabulary,
        Repeat(f"{name} repeat", name),
        *([Popularity(f"{name} popularity", name, levels)] if levels else []),
    ]


def _owners(log: Log) -> NDArray[np.int64]:
    """Int64 (T,), the sequence of each event."""
    return np.repeat(np.arange(len(log)), np.diff(log.offsets))
