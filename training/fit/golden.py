"""The golden samples of a bundle: sequences of training or, where nobody's may be kept, made-up ones."""

from collections.abc import Callable
from typing import Any

import numpy as np

from service.encoding.codewords import Codeword
from service.encoding.encoder import Encoder
from service.encoding.fields import FIRST, MISSING, Bins, Field, Gap
from service.encoding.pieces import Word
from service.encoding.values import Floats
from service.encoding.vectors import Codebook, as_text
from service.encoding.vocabulary import Vocabulary
from training.data.log import Log

SAMPLES, MOST_EVENTS = 8, 200
START, PAUSE = 1_700_000_000, 60.0  # of made-up events: the first time, and the median seconds between two
WORDS = 8  # of a made-up text
LARGEST = float(np.finfo(np.float64).max) / 4  # of made-up numbers

Events = list[dict[str, Any]]


def kept(log: Log, encoder: Encoder) -> list[Events]:
    """A few sequences of a log without ids, from the shortest to the longest."""
    order = np.argsort(np.diff(log.offsets), kind="stable")
    found: list[Events] = []
    for i in order[np.linspace(0, len(order) - 1, min(SAMPLES, len(order))).astype(int)].tolist():
        columns, length = log.sequence(i)
        reads = {name: values for name, values in columns.items() if name in encoder.columns}
        shown = range(min(length, MOST_EVENTS))
        found.append([{c: _plain(v[t]) for c, v in reads.items() if v[t] is not None} for t in shown])
    return found


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    return as_text(value) if isinstance(value, np.ndarray) else value


def made_up(encoder: Encoder, idf: Floats, seed: int) -> list[Events]:
    """Sequences that nobody has, whose values are drawn column by column, as often as training's sequences hold them.

    Args:
        idf: float64 (rows,), the inverse document frequency of each row of the encoder's table; 0 where it is not told.
    """
    rng, share = np.random.default_rng(seed), np.where(idf > 0, np.exp(-idf), 0.0)
    found: list[Events] = []
    for length in np.geomspace(1, MOST_EVENTS, SAMPLES).round().astype(int).tolist():
        columns: dict[str, list[Any]] = {}
        for stretch in encoder.stretches:
            columns |= _columns(encoder, stretch.field, share[stretch.start : stretch.end], length, rng)
        for column, book in encoder.reading.codebooks.items():
            columns[column] = _vectors(encoder, book, share, length, rng)
        found.append([{c: v[t] for c, v in columns.items() if v[t] is not None} for t in range(length)])
    return found


def _columns(
    encoder: Encoder, field: Field, share: Floats, length: int, rng: np.random.Generator
) -> dict[str, list[Any]]:
    """The columns that a field reads, with `length` values for each, None where one is missing."""
    if isinstance(field, Gap):
        return {"ts": (START + np.cumsum(rng.lognormal(np.log(PAUSE), 2.0, length))).round(1).tolist()}
    if isinstance(field, Word) and share.any():
        pieces = rng.choice(len(share), (len(encoder.text_columns), length, WORDS), p=share / share.sum()).tolist()
        # side by side: put together, they might make a word that one account alone has written
        texts = [
            [" ".join(field.label(i).removeprefix("##") for i in own) for own in of_events] for of_events in pieces
        ]
        return dict(zip(encoder.text_columns, texts, strict=True))
    if isinstance(field, Vocabulary) and field.name in encoder.reading.codebooks:
        return {}
    if isinstance(field, Vocabulary | Bins) and share[FIRST:].any():
        told = np.where(np.arange(len(share)) < MISSING, 0.0, share)
        ids = rng.choice(len(share), length, p=told / told.sum()).tolist()
        value = field.values.__getitem__ if isinstance(field, Vocabulary) else _number(field, rng)
        return {field.name: [None if i == MISSING else value(i - FIRST) for i in ids]}
    return {}


def _vectors(encoder: Encoder, book: Codebook, share: Floats, length: int, rng: np.random.Generator) -> list[Any]:
    """Vectors put together of codewords that are drawn part by part."""
    parts = [s for s in encoder.stretches if isinstance(s.field, Codeword) and s.field.column == book.column]
    drawn = []
    for s in parts:
        told = share[s.start + FIRST : s.end] + 1e-9
        drawn.append(rng.choice(len(told), length, p=told / told.sum()).tolist())
    return [as_text(book.vector(codes)) for codes in zip(*drawn, strict=True)]


def _number(field: Bins, rng: np.random.Generator) -> Callable[[int], float]:
    """Draws a number from a bin, given its place: the bin's value, or any between its edges."""
    edges = field.edges or [0.0]
    wide = max(edges[-1] / len(edges) - edges[0] / len(edges), 1 / len(edges))
    ends = np.clip([edges[0] - wide, *edges, edges[-1] + wide], -LARGEST, LARGEST).tolist()

    def drawn(at: int) -> float:
        share = rng.random()
        return field.exact[at] if field.exact else float(ends[at] * (1 - share) + ends[at + 1] * share)

    return drawn
