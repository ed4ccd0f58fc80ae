"""Says which events a decision hangs on: the fewest without which a flagged sequence would be judged more mildly.

`model.counterfactual` says what to try. Here it is really scored: shortened sequences go through the batcher like any
other, so that others see how much waits and overload control holds; those of all sequences of a request go together.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from service.encoding.values import Columns
from service.model.counterfactual import AT_ONCE, MOST_TRIED, Search, fewest
from service.model.policy import Policy
from service.model.reasons import blamed
from service.model.scorer import Judged, Model
from service.schemas.parsing import Asked
from service.schemas.problems import Problem
from service.schemas.terms import DECISIONS, Decision
from service.serving.steps import Prepared, Result, decided

QUEUES = 8  # while they are worked off, others are refused
REASONS = 5  # that say which events to blame
MILDER: Mapping[Decision, Sequence[Decision]] = {d: DECISIONS[:k] for k, d in enumerate(DECISIONS)}


class Shortened(NamedTuple):
    """A sequence without some of its events, which are given by their indices."""

    of: Prepared
    without: Sequence[int]

    @property
    def given(self) -> tuple[Columns, int, Any]:
        """What is encoded."""
        gone = set(self.without)
        left = [at for at in range(self.of.length) if at not in gone]
        columns = {name: [values[at] for at in left] for name, values in self.of.columns.items()}
        return columns, len(left), self.of.remembered


Judge = Callable[[Sequence[Shortened]], Awaitable[Sequence[Judged | Exception]]]


def refuse_many(asked: Asked, most: int) -> None:
    """Raises Problem 413 where a request could be scored more often than `most` sequences are."""
    most = max(most // MOST_TRIED, 1)
    if asked.counterfactual and len(asked.sequences) > most:
        raise Problem(
            413, f"{len(asked.sequences)} sequences in a request with counterfactual; at most {most} may be sent"
        )


def refuse_large(asked: Asked, some: Sequence[Prepared], most: int) -> None:
    """Raises Problem 413 where what is asked at once would fill the queue, of `most` positions, QUEUES times over."""
    positions, most = AT_ONCE * sum(one.positions for one in some), QUEUES * most
    if asked.counterfactual and positions > most:
        raise Problem(413, f"counterfactual asks for {positions} positions at once; at most {most}: send fewer events")


class _Open(NamedTuple):
    """A search that goes on: of which result, what it asks, and what was found of each way that it asked for."""

    result: Result
    prepared: Prepared
    search: Search
    asks: list[list[int]]
    known: dict[frozenset[int], Result]


async def explain(
    some: Sequence[tuple[Prepared, Judged | Exception, Result]],
    judge: Judge,
    model: Model,
    policy: Policy,
    asked: Asked,
) -> None:
    """Adds `counterfactual` to each result: null where it is allowed, on a list, or nothing that was tried changes it.

    Args:
        some: the request's sequences that could be scored, with their results.
        judge: scores shortened sequences, beside the crowd as it is.
    """
    searching = []
    for prepared, judged, result in some:
        if "error" in result or not isinstance(judged, Judged):
            continue
        result["counterfactual"] = None
        if result["decision"] != "allow" and "listed" not in result and prepared.length > 1:
            search = fewest(_most_blamed(judged, prepared, model))
            searching.append(_Open(result, prepared, search, next(search), {}))
    while searching:
        shortened = [Shortened(one.prepared, out) for one in searching for out in one.asks]
        found = iter(await judge(shortened))
        searching = [again for one in searching if (again := _next(one, found, model, policy, asked)) is not None]


def _most_blamed(judged: Judged, prepared: Prepared, model: Model) -> list[int]:
    """All events, first those to which reasons point most; of equal ones, those with the largest scores."""
    by_reasons = blamed(model.reasons(judged, prepared.given, REASONS), prepared.length)
    order: list[int] = np.lexsort((-judged.score.events, -by_reasons)).tolist()
    return order


def _next(one: _Open, found: Any, model: Model, policy: Policy, asked: Asked) -> _Open | None:
    """The search with what it asks next; None once it has ended, and its result says how."""
    changes = []
    for out in one.asks:
        judged, milder = next(found), False
        if isinstance(judged, Judged):
            decision = decided(judged, one.prepared, model, policy, asked)
            milder = decision in MILDER[one.result["decision"]]
            told = {"without": one.prepared.as_sent(out), "decision": decision, "score": round(judged.score.score, 6)}
            one.known[frozenset(out)] = told
        changes.append(milder)
    try:
        return one._replace(asks=one.search.send(changes))
    except StopIteration as ended:
        if ended.value is not None:
            one.result["counterfactual"] = one.known[frozenset(ended.value)]
        return None
