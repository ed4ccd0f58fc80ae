"""Statements of what was seen, and of what is usual: one function for each kind of topic.

A statement is chosen to fit what a topic adds: where values were learned to be those of anomalous histories, it names
these; else what is least like the usual. `seen` finds that, and `phrases` has the words.
"""

from collections.abc import Callable
from statistics import median

import numpy as np

from service.encoding.change import Change
from service.encoding.codewords import Codeword
from service.encoding.fields import (
    FIRST,
    MISSING,
    RHYTHM_EDGES,
    UNKNOWN,
    Bins,
    Deviation,
    Gap,
    Hour,
    Popularity,
    Repeat,
    Rhythm,
    Step,
)
from service.encoding.layout import Stretch
from service.encoding.pairs import Cross
from service.encoding.pieces import Shape, Word
from service.encoding.transition import SURPRISE_EDGES, Transition
from service.encoding.vocabulary import Vocabulary
from service.model.case import Case, Statement, in_words
from service.model.lengths import bins
from service.model.own_past import of_past
from service.model.phrases import (
    GENUINE,
    SHAPES,
    STEPS,
    TEXTS,
    USUAL,
    WHERE,
    listed,
    number,
    one_after_another,
    seconds,
    share,
    within,
)
from service.model.seen import Found
from service.model.topics import Topic

PACES = 1.5  # how many times as fast or slow as usual a pace must be to be named
LEAST_PAUSE = 0.1  # seconds; times are seldom told more exactly
MOST_WORDS, MOST_LOOKED_AT = 5, 10  # word pieces that a sentence names, and places at which their words are read
LED, MORE_LED = 0.3, 1.5  # share of the most frequent value that is named, and how many times the usual it must be


def state(case: Case) -> Statement:
    """What is said of a topic."""
    said = KINDS[case.topic.kind](case)
    if case.against:
        return said
    return Statement(GENUINE.format(text=said.text), said.events, said.observed, said.usual)


def _values(case: Case) -> Statement:
    stretch = case.main(Bins) or case.main(Vocabulary)
    assert stretch is not None
    if case.leads(stretch) and (known := _known(case, stretch)):
        return known
    one = case.found(stretch, ordered=False, least=UNKNOWN)  # what is missing may stand out, too
    if isinstance(stretch.field, Bins) and not (one and one.first == MISSING):
        one = case.found(stretch)
    return _named(case, stretch, one) if one else case.mixed()


def _known(case: Case, stretch: Stretch, name: str = "") -> Statement | None:
    """The values that add most in the direction of all, where they are learned; None if none does.

    Args:
        name: what the field is called; by default as it is.
    """
    added = case.seen.by_id(stretch, case.contributions) * (1 if case.against else -1)
    added[:FIRST] = 0.0
    if not (added > 0).any():
        return None
    most = np.argsort(-added, kind="stable")[: int((added > 0).sum())]
    most = most[np.cumsum(added[most]) - added[most] < 0.8 * added[most].sum()]  # four fifths of what they add
    ids = case.seen.ids(stretch)
    values = [in_words(stretch.field, i, i) for i in most.tolist()]
    text = "known" if case.against else "known_genuine"
    there, usual = np.isin(ids, most), float(case.usual(stretch)[most].sum())
    field = name or stretch.field.name
    return case.share_of(there, case.seen.length, usual, text, field=field, values=listed(values))


def _named(case: Case, stretch: Stretch, found: Found) -> Statement:
    f, first, last = stretch.field, found.first, found.last
    if first in (UNKNOWN, MISSING):
        return case.told(stretch, found, ("unknown", "missing")[first], field=f.name)
    return case.told(stretch, found, "value", field=f.name, value=in_words(f, first, last))


def _vector(case: Case) -> Statement:
    """What vectors are like in the part that tells most."""
    column = case.topic.column
    some = [s for s in case.encoder.stretches if isinstance(s.field, Codeword) and s.field.column == column]
    lead = next((s for s in some if case.leads(s)), None)
    if lead is not None and (known := _known(case, lead, column)):
        return known
    found = [(one, s) for s in some if (one := case.found(s, ordered=False, least=MISSING))]
    if not found:
        return case.mixed()
    one, stretch = max(found, key=lambda pair: pair[0].excess)
    if one.first == MISSING:
        return case.told(stretch, one, "missing", field=column)
    return case.told(stretch, one, "alike", field=column, value=stretch.field.label(one.first))


def _content(case: Case) -> Statement:
    vocabulary, popularity = case.main(Vocabulary), case.main(Popularity)
    assert vocabulary is not None
    if case.leads(vocabulary) and (known := _known(case, vocabulary)):
        return known
    if popularity is not None and (found := case.found(popularity)):
        levels = popularity.end - popularity.start - FIRST
        low, high = found.first - FIRST, found.last - FIRST
        most = None if high >= levels - 1 else 2.0 ** (high + 1) - (low > 0)
        value = within(2.0**low if low > 0 else None, most, number)
        return case.told(popularity, found, "held", field=case.topic.column, value=value)
    return _known(case, vocabulary) or case.mixed()


def _spread(case: Case) -> Statement:
    """How much is of one value, or how little."""
    name, seen = case.topic.column, case.seen
    at = next(k for k, v in enumerate(case.encoder.vocabularies) if v.name == name)
    vocabulary = case.topics.main(Topic("content", name), Vocabulary)
    assert vocabulary is not None
    codes, said = seen.codes(vocabulary)
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    if not len(values):
        return case.mixed()
    most, count, named = int(values[counts.argmax()]), int(counts.max()), int(counts.sum())
    usual = float(case.ordinary.leader[int(bins(np.array([seen.length]))[0]), at])
    known = None if np.isnan(usual) else usual
    if count > 1 and count / named >= max(LED, MORE_LED * (known or 0.0)):
        return case.share_of(codes == most, named, known, "leader", field=name, value=said(most))
    repeat = case.main(Repeat)
    again = case.found(repeat) if repeat else None
    if repeat is not None and again and (again.first > FIRST or again.last == FIRST):
        ago = 2 ** max(again.last - FIRST - 1, 0)
        text = "first" if again.last == FIRST else "repeat" if ago == 1 else "repeat_within"
        return case.told(repeat, again, text, field=name, ago=ago)
    return Statement(TEXTS["spread"].format(field=name, count=len(values), all=named), observed=float(len(values)))


def _pace(case: Case) -> Statement:
    ts, usual, stretch = case.seen.ts, float(case.ordinary.pause), case.main(Gap)
    gaps = sorted(gap for gap in np.diff(ts).tolist() if gap == gap)
    if not gaps:
        return Statement(TEXTS["pace_none"])
    times = [t for t in ts.tolist() if t == t]
    own, span = median(gaps), seconds(max(times) - min(times))
    # where half of all events come at once, their median tells nothing
    unlike = usual > 0 and not 1 / PACES < max(own, LEAST_PAUSE) / usual < PACES
    if not unlike and stretch is not None and (found := case.found(stretch, of_all=False)):
        value = in_words(stretch.field, found.first, found.last)
        return case.told(stretch, found, "pause", events=case.seen.length, span=span, value=value)
    told = {"all": case.seen.length, "span": span, "pause": seconds(own), "usual": seconds(usual)}
    if np.isnan(usual):
        return Statement(TEXTS["pace_alone"].format(**told), [], round(own, 3))
    return Statement(TEXTS["pace"].format(**told), [], round(own, 3), round(usual, 3))


def _rhythm(case: Case) -> Statement:
    stretch = case.main(Rhythm)
    assert stretch is not None
    found = case.found(stretch, of_all=False)
    if not found:
        return case.mixed()
    edges = [float(np.exp(edge)) for edge in RHYTHM_EDGES]
    low, high = found.first - FIRST, found.last - FIRST
    if low == 0:
        return case.told(stretch, found, "even", percent=100 * (edges[min(high, len(edges) - 1)] - 1))
    if high >= len(edges):
        return case.told(stretch, found, "uneven", factor=edges[low - 1])
    return case.told(stretch, found, "uneven_between", factor=edges[low - 1], high=edges[high])


def _hours(case: Case) -> Statement:
    stretch = case.main(Hour)
    assert stretch is not None
    found = case.found(stretch, circular=True)
    if not found:
        return case.mixed()
    return case.told(stretch, found, "hours", start=(found.first - FIRST) % 24, end=(found.last - FIRST + 1) % 24 or 24)


def _step(case: Case) -> Statement:
    stretch = case.main(Step)
    assert stretch is not None
    found = case.found(stretch, ordered=False, of_all=False)
    if not found:
        return case.mixed()
    label = stretch.field.label(found.first)
    return case.told(stretch, found, "step", field=case.topic.column, value=STEPS.get(label, label))


def _deviation(case: Case) -> Statement:
    stretch = case.main(Deviation)
    assert stretch is not None
    assert isinstance(stretch.field, Deviation)
    found = case.found(stretch)
    if not found:
        return case.mixed()
    value = in_words(stretch.field, found.first, found.last)
    return case.told(stretch, found, "deviation", field=stretch.field.column, by=stretch.field.by, value=value)


def _change(case: Case) -> Statement:
    stretch = case.main(Change)
    assert stretch is not None
    odds = Change.log_odds(case.seen.ids(stretch))
    after = odds > 0
    if not after.any():
        return case.mixed() if case.against else Statement(TEXTS["no_change"])
    likely = float(1 / (1 + np.exp(-odds.max())))
    there = after & (odds >= odds.max() / 2)
    said = TEXTS["change"].format(count=int(there.sum()), all=case.seen.length, likely=share(min(likely, 0.99)))
    return Statement(said, case.seen.events(there), round(likely, 4))


def _order(case: Case) -> Statement:
    stretch, pair = case.main(Transition), case.main(Cross)
    if case.lead.of == "values" and isinstance(f := case.encoder.stretches[case.lead.at].field, Cross):
        return _pairs(case, case.encoder.stretches[case.lead.at], f) or case.mixed()
    if stretch is not None and (found := case.found(stretch, of_all=False)):
        odd = found.first - FIRST > len(SURPRISE_EDGES) // 2
        return case.told(stretch, found, "surprising" if odd else "expected")
    return (_pairs(case, pair, pair.field) if pair and isinstance(pair.field, Cross) else None) or case.mixed()


def _pairs(case: Case, stretch: Stretch, cross: Cross) -> Statement | None:
    """What follows what, of that which adds most in the direction of all."""
    added = case.seen.by_id(stretch, case.contributions) * (1 if case.against else -1)
    added[:FIRST] = 0.0
    if not (added > 0).any():
        return None
    at = int(added.argmax())
    there = case.seen.ids(stretch) == at
    usual = float(case.usual(stretch)[at])
    values = one_after_another(_in_order(case, cross, at))
    return case.share_of(there, case.seen.length, usual, "after", field=case.topic.column, values=values)


def _in_order(case: Case, cross: Cross, pair: int) -> list[str]:
    """The values of a pair of what follows one another, the earliest first."""
    left, right = cross.pairs[pair - FIRST]
    inner, earlier = case.topics.field(cross.left), case.topics.field(cross.right)
    return [
        earlier.label(right),
        *(_in_order(case, inner, left) if isinstance(inner, Cross) and left >= FIRST else [inner.label(left)]),
    ]


def _length(case: Case) -> Statement:
    return Statement(TEXTS["length"].format(all=case.seen.length), observed=float(case.seen.length))


def _words(case: Case) -> Statement:
    """Words that add most, or that are most frequent beyond the usual."""
    stretch = case.main(Word)
    assert stretch is not None
    seen, ids = case.seen, case.seen.ids(stretch)
    added = seen.by_id(stretch, case.contributions) * (1 if case.against else -1)
    learned = case.lead.of == "values" and bool((added > 0).any())
    if not learned:
        counts = np.bincount(ids, minlength=len(added)) / max(len(ids), 1)
        added = counts * np.log(np.maximum(counts, 1e-9) / np.maximum(case.usual(stretch), 1e-6))
    most = [i for i in np.argsort(-added, kind="stable")[:MOST_WORDS].tolist() if added[i] > 0]
    at = np.flatnonzero(np.isin(ids, most))
    order = sorted(at.tolist(), key=lambda k: most.index(int(ids[k])))
    there = np.isin(seen.owner, seen.encoded.belongs[seen.pieces[at]])
    text = "word" if not learned else "words_known" if case.against else "words_genuine"
    where = WHERE.format(count=int(there.sum()), all=seen.length) if seen.length > 1 else ""
    return case.share_of(there, seen.length, None, text, values=seen.words(order[:MOST_LOOKED_AT]), where=where)


def _shape(case: Case) -> Statement:
    stretch = case.main(Shape)
    assert stretch is not None
    ids = case.seen.ids(stretch)
    counts, usual = (
        np.bincount(ids[ids >= 0], minlength=stretch.end - stretch.start) / max(len(ids), 1),
        case.usual(stretch),
    )
    at = int((counts - usual).argmax())
    there = np.isin(case.seen.owner, case.seen.encoded.belongs[case.seen.pieces[ids == at]])
    said = TEXTS["shape"].format(count=int((ids == at).sum()), all=len(ids), value=SHAPES[stretch.field.label(at)])
    said = USUAL.format(text=said, usual=share(float(usual[at])))
    return Statement(said, case.seen.events(there), round(float(counts[at]), 4), round(float(usual[at]), 6))


KINDS: dict[str, Callable[[Case], Statement]] = {
    "values": _values,
    "vector": _vector,
    "content": _content,
    "spread": _spread,
    "pace": _pace,
    "rhythm": _rhythm,
    "hours": _hours,
    "step": _step,
    "deviation": _deviation,
    "change": _change,
    "habit": of_past,
    "order": _order,
    "length": _length,
    "words": _words,
    "shape": _shape,
}
