"""The encoder of a private fit: it names what many accounts hold, as far as noise lets it see, and nothing else.

It has the fields that learn no more than that. What would have to be told of accounts beside it, such as pairs, habits
and an item's mean, is left out.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from service.encoding.encoder import Encoder
from service.encoding.fields import Bins, Field, Gap, Hour, Popularity, Repeat, Rhythm, Step
from service.encoding.values import catalogue_order
from service.encoding.vocabulary import Vocabulary, spelling
from training.data.kinds import CATEGORICAL, IDENTIFIER, NUMERIC, TEXT, VECTOR
from training.data.log import Log, LogError
from training.fit.bins import BINS
from training.fit.encoder import MAX_VALUES, spelt
from training.fit.noise import Ledger, least_named
from training.fit.pieces import pretrained_tokenizer

MOST_VALUES = 64  # of an account in one column that count, the first of its history
VALUES = "values"
Weights = Mapping[str, Mapping[str, float]]


def private_encoder(log: Log, timed: bool, ledger: Ledger, pretrained: str | None, max_positions: int) -> Encoder:
    """An encoder from the values that many accounts of a log hold.

    The kinds of columns and how values are spelt are taken as given: they are no secret of any account.

    Args:
        log: the accounts that it learns from; which columns they fill changes nothing but what is named of these.
        timed: whether there are times.
        ledger: what may be spent.
        pretrained, max_positions: as for `fit_encoder`.

    Raises:
        LogError: no column tells one event from another, or one holds vectors: codewords are means of few accounts.
    """
    kinds = log.kinds
    if vectors := [name for name, kind in kinds.items() if kind == VECTOR]:
        ignored = ",".join(f"{name}=ignore" for name in vectors)
        raise LogError(f"a private fit reads no vectors ({', '.join(vectors)}): leave them out with --kinds {ignored}")
    named = common(contributions(log, kinds), ledger)
    fields: list[Field] = [_bins(name, named[name]) for name, kind in kinds.items() if kind == NUMERIC]
    for name, kind in kinds.items():
        if kind in (CATEGORICAL, IDENTIFIER):
            fields += _of_values(name, kind == IDENTIFIER, named[name], len(named))
    if timed:
        fields += [Gap(), Rhythm(), Hour()]
    texts = [name for name, kind in kinds.items() if kind == TEXT]
    if not fields and not texts:
        raise LogError("nothing to learn from: beside ids, every column is empty or the same in each row")
    return Encoder(fields, log.reading, texts, pretrained_tokenizer(pretrained) if texts else None, max_positions)


def contributions(log: Log, kinds: Mapping[str, str]) -> dict[str, pl.DataFrame]:
    """For each column of values, the accounts, the `value`s that they hold, and the `weight` that each adds.

    An account's values in a column weigh alike, and all its weights together have the length 1 at most.
    """
    columns = [name for name, kind in kinds.items() if kind in (NUMERIC, CATEGORICAL, IDENTIFIER)]
    found = {}
    for name in columns:
        held = log.events.select("sequence_id", value=name).drop_nulls()
        if kinds[name] == NUMERIC:
            held = held.filter(pl.col("value").is_finite())
            text = pl.Series("value", [rounded(value) for value in held["value"].to_list()], pl.String)
        else:
            identifier = kinds[name] == IDENTIFIER
            text = spelt(held["value"], partial(spelling, identifier=identifier))
        held = held.with_columns(value=text).unique(maintain_order=True)
        held = held.group_by("sequence_id", maintain_order=True).head(MOST_VALUES)
        many = pl.len().over("sequence_id")
        found[name] = held.with_columns(weight=1 / (many * len(columns)).cast(pl.Float64).sqrt())
    return found


def rounded(value: float) -> str:
    """A number to two digits, which is the same whatever a log holds."""
    return f"{value:.1e}"


def common(held: Mapping[str, pl.DataFrame], ledger: Ledger) -> Weights:
    """By column, the values whose weight reaches above what noise and one account could bring about, with the noise."""
    if not held:
        return {}
    noise = ledger.multiplier(VALUES)
    above = least_named(ledger.of_selection, noise, len(held), MOST_VALUES)
    totals = {name: of.group_by("value").agg(pl.col("weight").sum()).sort("value") for name, of in held.items()}
    weight = ledger.noisy(VALUES, np.concatenate([of["weight"].to_numpy() for of in totals.values()]), 1.0)
    ends = np.cumsum([of.height for of in totals.values()])[:-1]
    return {
        name: {value: w for value, w in zip(of["value"].to_list(), own.tolist(), strict=True) if w > above}
        for (name, of), own in zip(totals.items(), np.split(weight, ends), strict=True)
    }


def _of_values(name: str, identifier: bool, named: Mapping[str, float], columns: int) -> list[Field]:
    """The fields of a column of values. As a holder weighs 1 / sqrt(columns) at most, there are as many at least."""
    some = sorted(named, key=named.__getitem__, reverse=True)[:MAX_VALUES]
    vocabulary = Vocabulary(name, sorted(some, key=catalogue_order), identifier)
    if not identifier:
        return [vocabulary]
    repeat = Repeat(f"{name} repeat", name)
    if not vocabulary.values:
        return [vocabulary, repeat]
    levels = [max(int(named[value] * np.sqrt(columns)), 1).bit_length() - 1 for value in vocabulary.values]
    return [vocabulary, repeat, Popularity(f"{name} popularity", name, levels), Step(f"{name} step", name)]


def _bins(name: str, named: Mapping[str, float]) -> Bins:
    """Bins between the numbers that are named; where these are many, each bin has about as much of their weight."""
    told = sorted((float(value), weight) for value, weight in named.items())
    values, weight = np.array([v for v, _ in told]), np.cumsum([w for _, w in told])
    between = (values[1:] + values[:-1]) / 2
    if len(between) < BINS:
        return Bins(name, between.tolist())
    at = np.searchsorted(weight, np.linspace(0, weight[-1], BINS + 1)[1:-1])
    return Bins(name, np.unique(between[np.minimum(at, len(between) - 1)]).tolist())
