"""Learns the encoder from a training log: the fields that read its columns, by the kinds that `training.data` found."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.encoding.change import COUNTS, Change
from service.encoding.codewords import Codeword
from service.encoding.encoder import Encoder
from service.encoding.events import Events, joined_texts
from service.encoding.fields import (
    FIRST,
    MISSING,
    UNKNOWN,
    Bins,
    Deviation,
    Field,
    Gap,
    Hour,
    Neighbourhood,
    Popularity,
    Repeat,
    Rhythm,
    Step,
)
from service.encoding.habit import LAG, LEAST_PAST, Habit, compared_with_past
from service.encoding.layout import repeated
from service.encoding.pairs import Cross, pair_keys
from service.encoding.transition import Transition
from service.encoding.values import Floats, catalogue_order
from service.encoding.vocabulary import Vocabulary, spelling
from training.data.kinds import CATEGORICAL, IDENTIFIER, NUMERIC, ROLES, TEXT, VECTOR
from training.data.log import Log, LogError
from training.fit import agreed
from training.fit.bins import SEVERAL, number_bins
from training.fit.codebooks import fit_codebooks, vector_fields
from training.sites import federated, total, totals

SMALL = 64  # distinct values up to which a column may be crossed with another
MAX_VALUES = 50_000  # most values in one vocabulary; those that most sequences hold are kept
MAX_PAIRS = 100_000  # most pairs in one cross; those that most sequences hold are kept
CHANGE_SEQUENCES = 1000  # most sequences that change points and habits are learned from
STRENGTHS = (10.0, 30.0, 100.0, 300.0, 1000.0)  # imaginary past events of a habit, of which the likeliest are chosen
LEAST_GAIN = 0.02  # nats an event that an account's past must tell about a field
LEAST_LONG = 20  # sequences that are long enough to have a past
STRETCH = 8  # fewest values of a catalogue that form a stretch of neighbours
MAX_STRETCHES = 8192
FARTHEST = 1024.0  # times the last edge of a number's bins, beyond which sites do not add it up


def fit_encoder(
    log: Log, tokenizer: Tokenizer | None, max_positions: int, old: Encoder | None = None, least: int = SEVERAL
) -> Encoder:
    """Learns vocabularies, bins, popularity, means and pairs from training sequences only.

    Args:
        log: the training part of the log.
        tokenizer: tokenizer for the columns of text; needed if the log has some.
        max_positions: most positions in one pass.
        old: an encoder whose bins and known values are kept; the log adds to them.
        least: fewest sequences that hold a value or a pair which is learned. If they are more than SEVERAL, nothing
            else that fewer hold is told either: no number as the edge of a bin, no share of a value.

    Raises:
        LogError: no column tells one event from another.
    """
    known = {f.name: f for f in old.fields} if old else {}
    if federated() and (vectors := [name for name, kind in log.kinds.items() if kind == VECTOR]):
        raise LogError(f"sites do not read vectors together: leave {vectors[0]} out with --kinds {vectors[0]}=ignore")
    books = fit_codebooks(log, least, old)
    log = replace(log, reading=replace(log.reading, codebooks=books))
    kinds = {name: kind for name, kind in log.kinds.items() if log.events[name].null_count() < log.events.height}
    if federated():
        agreed.same_kinds(kinds)
    numbers = [number_bins(name, log, known.get(name), least) for name, kind in kinds.items() if kind == NUMERIC]
    vocabularies = [
        _vocabulary(name, log, kind == IDENTIFIER, known.get(name), least)
        for name, kind in kinds.items()
        if kind in (CATEGORICAL, IDENTIFIER)
    ]
    fields: list[Field] = [*numbers, *vocabularies]
    for v in vocabularies:
        if v.identifier:
            fields.extend(_of_identifier(v, log, numbers, least))
    fields.extend(vector_fields(log, books, least, known))
    if log.events["ts"].is_not_null().any():
        fields.extend((Gap(), Rhythm(), Hour()))
    fields.extend(_change(fields, log, least))
    fields.extend(_habit(fields, log, least))
    fields.extend(_crosses(log, fields, _wanted_crosses(numbers, vocabularies), least))
    fields.extend(_transitions(log, fields))
    texts = [name for name, kind in kinds.items() if kind == TEXT]
    if texts and federated():
        raise LogError(f"sites do not read texts together: leave {texts[0]} out with --kinds {texts[0]}=ignore")
    if not texts:
        tokenizer = None
    if not fields and not texts:
        raise LogError(
            "nothing to learn from: beside ids, the log has no times, and every other column is empty or the same in "
            f"each row ({', '.join(name for name in log.events.columns if name not in ROLES)})"
        )
    for name in repeated(fields):
        raise LogError(
            f"column {name!r} has the name of a field that is made of others; give it another one: "
            f"--columns 'its {name}={name}'"
        )
    pairs = _piece_pairs(log, texts, tokenizer, least) if tokenizer else []
    return Encoder(fields, log.reading, texts, tokenizer, max_positions, pairs)


def _of_identifier(vocabulary: Vocabulary, log: Log, numbers: Sequence[Bins], least: int) -> list[Field]:
    """Fields made from an identifier besides its value; for an item also how far numbers are from the item's mean."""
    fields: list[Field] = [Repeat(f"{vocabulary.name} repeat", vocabulary.name)]
    if vocabulary.values:
        fields.append(Popularity(f"{vocabulary.name} popularity", vocabulary.name, _levels(vocabulary, log)))
        fields.append(Step(f"{vocabulary.name} step", vocabulary.name))
        if not federated():  # a stretch begins with a value, which no site knows of the others
            fields.extend(_neighbourhood(vocabulary, log, least))
        if vocabulary.name == "item_id":
            fields.extend(_deviation(vocabulary, number, log, least) for number in numbers)
    return fields


def _wanted_crosses(numbers: Sequence[Bins], vocabularies: Sequence[Vocabulary]) -> list[tuple[str, str, int]]:
    """(left, right, lag) of each cross: two and three actions in a row, and the item with each column of few values."""
    small = [n.name for n in numbers if n.size <= SMALL]
    small += [v.name for v in vocabularies if not v.identifier and 1 < len(v.values) <= SMALL]
    wanted: list[tuple[str, str, int]] = []
    for v in vocabularies:
        if not v.identifier and v.name == "action" and len(v.values) > 1:
            wanted.extend(((v.name, v.name, 1), (f"{v.name} after {v.name}", v.name, 2)))
        elif v.identifier and v.name == "item_id":
            wanted.extend((v.name, other, 0) for other in small)
    return wanted


def spelt(column: pl.Series, spell: Callable[[object], str]) -> pl.Series:
    """A column without nulls, each value as it is known."""
    given = column.unique()
    return column.replace_strict(given, [spell(value) for value in given], return_dtype=pl.String)


def _holders(log: Log, column: str, spell: Callable[[object], str]) -> Counter[str]:
    """How many sequences hold each value, under all its spellings."""
    held = log.events.select("sequence_id", column).drop_nulls()
    held = held.with_columns(spelt(held[column], spell)).unique()
    return Counter(dict(held[column].alias("value").value_counts(name="sequences").iter_rows()))


def _vocabulary(name: str, log: Log, identifier: bool, old: Field | None, least: int) -> Vocabulary:
    holders = _holders(log, name, partial(spelling, identifier=identifier))
    if federated():
        return agreed.vocabulary(name, holders, identifier, least, MAX_VALUES)
    values = {value for value, count in holders.most_common(MAX_VALUES) if count >= least}
    if isinstance(old, Vocabulary):
        values |= set(old.values)
    return Vocabulary(name, sorted(values, key=catalogue_order), identifier)


def _levels(vocabulary: Vocabulary, log: Log) -> list[int]:
    holders = agreed.of_values(vocabulary, _holders(log, vocabulary.name, vocabulary.known_as)).astype(int).tolist()
    return [max(count.bit_length() - 1, 0) for count in holders]


def _deviation(vocabulary: Vocabulary, number: Bins, log: Log, least: int) -> Deviation:
    pairs = log.events.select("sequence_id", vocabulary.name, value=number.name).drop_nulls()
    pairs = pairs.with_columns(spelt(pairs[vocabulary.name], vocabulary.known_as))
    unit = 1.0
    if federated():  # sums over sites are of numbers that are neither large nor small
        unit = float(np.abs(number.edges).max(initial=0.0)) or 1.0
        pairs = pairs.with_columns(pl.col("value").clip(-FARTHEST * unit, FARTHEST * unit) / unit)
    values = pairs["value"].to_numpy()
    count, sum_ = total(np.array([len(values), values.sum()], dtype=np.float64)).tolist()
    overall = sum_ / max(count, 1.0)
    count, squares = total(np.array([len(values), ((values - overall) ** 2).sum()], dtype=np.float64)).tolist()
    spread = float(np.sqrt(squares / max(count, 1.0)))
    # four imaginary events at the overall mean pull an item with few numbers towards it
    of_value = pairs.group_by(vocabulary.name)
    sums = of_value.agg(pl.col("value").sum(), pl.len().alias("events"), pl.col("sequence_id").n_unique())
    of_all = (agreed.of_own(vocabulary, dict(zip(sums[vocabulary.name], own, strict=True))) for own in sums[:, 1:])
    sums_, events, holders = totals(*of_all)
    means = np.where(holders >= least, (sums_ + 4 * overall) / (events + 4), overall)
    name = f"{number.name} against {vocabulary.name}"
    return Deviation(name, number.name, vocabulary.name, (means * unit).tolist(), spread * unit or 1.0)


def _neighbourhood(vocabulary: Vocabulary, log: Log, least: int) -> list[Neighbourhood]:
    """The field, if two events of a sequence share a stretch of the catalogue clearly more often than by chance."""
    column = log.events.select("sequence_id", vocabulary.name).drop_nulls()
    seen = spelt(column[vocabulary.name], vocabulary.known_as)
    values = sorted({*seen.unique(), *vocabulary.values}, key=catalogue_order)
    named = vocabulary.values if least > SEVERAL else values  # of which the first of each stretch is told
    size = max(STRETCH, -(-len(named) // MAX_STRETCHES))
    if len(named) < 4 * size:
        return []
    starts = named[::size]
    first = [catalogue_order(value) for value in starts]
    stretch_of = {value: max(bisect_right(first, catalogue_order(value)) - 1, 0) for value in values}
    found = Neighbourhood(
        f"{vocabulary.name} neighbourhood", vocabulary.name, starts, [stretch_of[v] for v in vocabulary.values]
    )
    # compare pairs of different values from one sequence with pairs from the whole log
    at = np.array([stretch_of[value] for value in seen])
    owner = column["sequence_id"].rle_id().to_numpy()
    order = np.lexsort((np.random.default_rng(0).random(len(at)), owner))
    value = seen.to_numpy()[order]
    pairs = (owner[1:] == owner[:-1]) & (value[1:] != value[:-1])
    together = (at[order][1:] == at[order][:-1])[pairs]
    chance = np.sum((np.bincount(at) / len(at)) ** 2)
    return [found] if together.sum() >= 10 and together.mean() > 2 * chance else []


def _change(fields: Sequence[Field], log: Log, least: int) -> list[Change]:
    """The change point over fields, of whose evidence as much counts as leaves most sequences without a change."""
    drawn = np.random.default_rng(0).permutation(len(log))[:CHANGE_SEQUENCES].tolist()
    events = Events(*log.subset(np.array(drawn)).whole, log.reading)
    sources = list[tuple[str, list[float], float]]()
    for f in fields:
        ids = events.ids[f.name] = f.encode(events)
        shares = _frequencies(ids, events, f.size, least)
        support, told = Change(f.name, [f.name], [shares], [1.0]).support([ids], events)
        able = (events.lengths > 1) & told  # to tell of a change
        anywhere = np.logaddexp.reduceat(np.array(COUNTS)[:, None] * support, events.starts, axis=1)[:, able]
        odds = anywhere - np.log(events.lengths[able] - 1)
        changing, unchanged = total(np.array([(odds >= 0).sum(axis=1), (odds < 0).sum(axis=1)]))
        calm = np.flatnonzero(unchanged > changing)
        if len(calm):
            sources.append((f.name, shares, COUNTS[calm[0]]))
    if not sources:
        return []
    names, frequencies, counts = map(list, zip(*sources, strict=True))
    return [Change("point of change", names, frequencies, counts)]


def _habit(fields: Sequence[Field], log: Log, least: int) -> list[Habit]:
    """What an account does as it used to: the fields, first-hand, that its past predicts better than the log does."""
    long = np.flatnonzero(np.diff(log.offsets) > LAG + LEAST_PAST)
    if federated():
        return []  # which fields it compares would have to be the same at each site, also where nobody has a past
    if len(long) < LEAST_LONG:
        return []
    drawn = np.random.default_rng(0).permutation(long)[:CHANGE_SEQUENCES]
    events = Events(*log.subset(drawn).whole, log.reading)
    told = events.at - LAG >= LEAST_PAST
    kept: list[tuple[str, float, list[float]]] = []
    for f in fields:
        if not isinstance(f, Vocabulary | Bins | Codeword | Gap | Hour):
            continue
        ids = events.ids[f.name] = f.encode(events)
        shares = _frequencies(ids, events, f.size, least)
        if f.name in events.codes:  # of one unknown value
            shares[UNKNOWN] /= 1 + len(np.unique(events.codes[f.name][ids == UNKNOWN]))
        gains = dict[float, float]()
        for strength in STRENGTHS:
            each, _ = compared_with_past(events, [f.name], [strength], [np.array(shares)])
            gains[strength] = float(np.nan_to_num(each[told]).mean())
        best = max(gains, key=gains.__getitem__)
        if gains[best] > LEAST_GAIN:
            kept.append((f.name, best, shares))
    if not kept:
        return []
    sources, strengths, frequencies = map(list, zip(*kept, strict=True))
    return [Habit("habit", sources, strengths, frequencies)]


def _frequencies(ids: NDArray[np.integer], events: Events, size: int, least: int) -> list[float]:
    """The share of each of `size` ids among the events; of what few sequences hold, as if none did."""
    counts = np.bincount(ids, minlength=size)
    if least > SEVERAL:
        counts[_holding(ids, events, size) < least] = 0
    smoothed = counts + 0.5
    found: list[float] = (smoothed / smoothed.sum()).tolist()
    return found


def _holding(ids: NDArray[np.integer], events: Events, size: int) -> NDArray[np.int64]:
    """How many sequences hold each id, int64 (size,)."""
    return np.bincount(np.unique(events.owner * size + ids) % size, minlength=size)


def _shared(holders: Counter[int], least: int) -> list[list[int]]:
    """The pairs that at least so many training sequences hold, unpacked from their keys and sorted."""
    common = sorted(k for k, n in holders.most_common(MAX_PAIRS) if n >= least)
    return [[key >> 32, key & 0xFFFFFFFF] for key in common]


def _piece_pairs(log: Log, texts: Sequence[str], tokenizer: Tokenizer, least: int) -> list[list[int]]:
    holders: Counter[int] = Counter()
    for columns, length in log.sequences():
        keys: set[int] = set()
        written = joined_texts(columns, length, texts, log.reading)
        for encoding in tokenizer.encode_batch(written, add_special_tokens=False):
            ids = np.array(encoding.ids, dtype=np.int64)
            keys.update(pair_keys(ids, ids, 1, np.arange(len(ids)))[1:].tolist())
        holders.update(keys)
    return _shared(holders, least)


def _crosses(log: Log, fields: Sequence[Field], wanted: Sequence[tuple[str, str, int]], least: int) -> list[Cross]:
    """One cross for each wanted (left, right, lag); a cross may build on one before it."""
    crosses: list[Cross] = []
    for left, right, lag in wanted:
        available = [*fields, *crosses]
        needed = _with_sources(available, {left, right})
        events = Events(*log.whole, log.reading)
        for f in needed:
            events.ids[f.name] = f.encode(events)
        keys = pair_keys(events.ids[left], events.ids[right], lag, events.at)
        order = np.lexsort((keys, events.owner))
        again = (keys[order[1:]] == keys[order[:-1]]) & (events.owner[order[1:]] == events.owner[order[:-1]])
        once = keys[order[~np.append([False], again)]]
        name = f"{left} after {right}" if lag else f"{left} with {right}"
        if federated():
            sizes = {f.name: f.size for f in needed}
            found = agreed.pairs(once[once >= 0], sizes[left], sizes[right], least, MAX_PAIRS)
        else:
            pairs, counts = np.unique(once[once >= 0], return_counts=True)
            found = _shared(Counter(dict(zip(pairs.tolist(), counts.tolist(), strict=True))), least)
        crosses.append(Cross(name, left, right, found, lag))
    return crosses


def _transitions(log: Log, fields: Sequence[Field]) -> list[Transition]:
    """What follows what, where the log has actions; each n-gram counts as if one of its holders had not been there."""
    named = {f.name: f for f in fields}
    column, pair = "action", "action after action"
    triple = f"{pair} after action"
    if triple not in named:
        return []
    events = Events(*log.whole, log.reading)
    for f in _with_sources(fields, {column, pair, triple}):
        events.ids[f.name] = f.encode(events)
    ids = [events.ids[name] for name in (column, pair, triple)]
    sizes = [named[name].size for name in (column, pair, triple)]
    value = (_others_counts(ids[0], events, sizes[0]) + 0.5) / (events.length + 0.5 * sizes[0])
    probability, rest = [np.log(value)], []
    for k in (1, 2):
        # the context is the n-gram one shorter that ends with the event before
        context = np.roll(ids[k - 1], 1)
        there = events.at >= k
        total = np.bincount(context[there], minlength=sizes[k - 1]).astype(np.float64)
        follows = np.unique(np.stack((context[there], ids[0][there])), axis=1)[0]
        kinds = np.bincount(follows, minlength=sizes[k - 1]) + 0.5
        counts = _others_counts(np.where(there, ids[k], MISSING), events, sizes[k])
        # the context of each known n-gram, and what it is without its oldest value
        at = np.flatnonzero(there & (ids[k] >= FIRST))
        of, first = np.unique(ids[k][at], return_index=True)
        before, shorter = context[at[first]], ids[k - 1][at[first]]
        lower = np.exp(probability[k - 1])[shorter]
        table = np.full(sizes[k], np.log(1e-9))
        table[of] = np.log((counts[of] + kinds[before] * lower) / (total[before] + kinds[before]))
        probability.append(table)
        rest.append(np.where(np.arange(sizes[k - 1]) < FIRST, 0.0, np.log(kinds / (total + kinds))))
    return [
        Transition(
            "action transition", column, pair, triple, [t.tolist() for t in probability], [t.tolist() for t in rest]
        )
    ]


def _others_counts(ids: NDArray[np.integer], events: Events, size: int) -> Floats:
    """How often each id is there, float64 (size,), less what one of the sequences that hold it has on average."""
    uses = np.bincount(ids, minlength=size)
    return uses * (1 - 1 / np.maximum(_holding(ids, events, size), 1))


def _with_sources(fields: Sequence[Field], names: set[str]) -> list[Field]:
    """The named fields and those that they build on, in the given order."""
    needed = set(names)
    for f in reversed(fields):
        if f.name in needed and isinstance(f, Cross):
            needed |= {f.left, f.right}
    return [f for f in fields if f.name in needed]


def clipped(log: Log, encoder: Encoder) -> dict[str, int]:
    """How many values of each number lie in training's outer thousandths, and so fall into the end bins."""
    counts = {}
    for f in encoder.fields:
        if isinstance(f, Bins) and not f.exact:
            column = log.events[f.name].drop_nulls()
            low, high = column.quantile(0.001), column.quantile(0.999)
            counts[f.name] = int(((column < low) | (column > high)).sum())
    return counts
