"""What share of genuine accounts is flagged, by people's verdicts, and what a rate must mean for the promise to hold.

Most verdicts are on flagged answers, since all of those are kept and only a random share of the others. So each judged
account stands for as many as it was drawn from (Horvitz and Thompson, 1952): for one over the probability that its
answer was kept, and for those kept like it, of the same decision and rate, that nobody has judged.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from service.model.false_alarms import RATES
from service.model.intervals import Bounds, wilson
from service.model.lengths import CLASSES
from service.model.recalibration import Recalibration

Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Counted:
    """Accounts alike, each by the one answer that counts for it.

    Attributes:
        events: class of length of the answer (`lengths.CLASSES`).
        segment: of the answer; "" if it named none.
        decision: "allow", "review" or "block", as it was then.
        share: probability with which such an answer is kept; above 0.
        rate: its false-alarm rate by the bundle's curves.
        genuine: what people say; None if nobody has judged it.
        accounts: how many they are; at least 1.
        score: of a judged one, where it was asked for.
    """

    events: int
    segment: str
    decision: str
    share: float
    rate: float
    genuine: bool | None
    accounts: int = 1
    score: float | None = None


def weights(counted: Sequence[Counted]) -> list[float]:
    """For how many accounts each judged account stands; 0 for those that nobody has judged.

    If nobody has judged any with a decision and rate, those judged with the same decision stand for these too.
    """
    kept: defaultdict[tuple[str, float], float] = defaultdict(float)
    judged: defaultdict[tuple[str, float], int] = defaultdict(int)
    for c in counted:
        kept[c.decision, c.rate] += c.accounts / c.share
        judged[c.decision, c.rate] += c.accounts if c.genuine is not None else 0
    whole: defaultdict[str, float] = defaultdict(float)
    known: defaultdict[str, float] = defaultdict(float)
    for cell, stands in kept.items():
        whole[cell[0]] += stands
        known[cell[0]] += stands if judged[cell] else 0.0
    found = []
    for c in counted:
        cell = c.decision, c.rate
        found.append(0.0 if c.genuine is None else kept[cell] / judged[cell] * whole[cell[0]] / known[cell[0]])
    return found


def delivered(counted: Sequence[Counted], flags: Callable[[Counted], bool]) -> Bounds:
    """The share of genuine accounts that is flagged, with an interval that covers at least 95 %.

    NaN while there is no verdict on what is flagged, or none on what is not. The interval combines the ends of both
    parts' intervals, each the product of Wilson's for the share that is genuine and of the score interval for how many
    the random sample stands for, as of a Poisson number.
    """
    weighed = list(zip(counted, weights(counted), strict=True))

    def genuine(flagged: bool) -> Bounds:
        """How many genuine accounts are in a part."""
        part = [(c, weight) for c, weight in weighed if flags(c) == flagged]
        if not part:
            # all that is flagged is kept, so there is nothing; of the others there are some that were not drawn
            return Bounds(0.0, 0.0, 0.0) if flagged else Bounds()
        many = sum(c.accounts / c.share for c, _ in part)
        unit = max((1 - c.share) / c.share for c, _ in part)
        spread = sum(c.accounts * (1 - c.share) / c.share**2 for c, _ in part)
        middle, half = many + unit * Z**2 / 2, Z * math.sqrt(spread + (unit * Z / 2) ** 2)
        judged = sum(c.accounts for c, _ in part if c.genuine is not None)
        stand = sum(c.accounts * weight for c, weight in part)
        right = sum(c.accounts * weight for c, weight in part if c.genuine)
        share = wilson(right / stand * judged if stand else 0.0, judged)
        return Bounds(many * share.estimate, max(middle - half, 0.0) * share.low, (middle + half) * share.high)

    wrong, passed = genuine(True), genuine(False)

    def share(of: float, beside: float) -> float:
        return of / (of + beside) if of + beside > 0 else math.nan

    return Bounds(share(wrong.estimate, passed.estimate), share(wrong.low, passed.high), share(wrong.high, passed.low))


@dataclass(frozen=True)
class Tried:
    """What thresholds would have done, by verdicts.

    Attributes:
        judged: accounts with a verdict.
        precision: share of the flagged accounts that are anomalous.
        recall: share of the anomalous accounts that are flagged; NaN while nobody has judged any that was allowed.
        missed, bothered: shares of all accounts: anomalous and not flagged, genuine and flagged; NaN as recall is.
    """

    judged: int
    precision: Bounds
    recall: Bounds
    missed: float
    bothered: float


def tried(counted: Sequence[Counted], flags: Callable[[Counted], bool]) -> Tried:
    """What thresholds would have done that flag other accounts than those that were in force.

    Each judged account stands for those it was drawn from (`weights`). Intervals are Wilson's, of as many accounts as
    would tell as much if all weighed the same (Kish, "Survey sampling", 1965).
    """
    weighed = [(c, c.accounts * w, c.accounts * w * w) for c, w in zip(counted, weights(counted), strict=True) if w]

    def part(which: Callable[[Counted], bool]) -> tuple[float, float]:
        some = [(stand, square) for c, stand, square in weighed if which(c)]
        return sum(stand for stand, _ in some), sum(square for _, square in some)

    def share(hits: Callable[[Counted], bool], of: Callable[[Counted], bool]) -> Bounds:
        (stand, square), (right, _) = part(of), part(lambda c: of(c) and hits(c))
        return wilson(right / stand * stand**2 / square, stand**2 / square) if stand else Bounds()

    def anomalous(c: Counted) -> bool:
        return not c.genuine

    told = any(c.decision == "allow" for c, _, _ in weighed) or all(c.decision != "allow" for c in counted)
    total = part(lambda _: True)[0]
    missed, bothered = (
        part(lambda c: anomalous(c) and not flags(c))[0],
        part(lambda c: not anomalous(c) and flags(c))[0],
    )
    return Tried(
        sum(c.accounts for c, _, _ in weighed),
        share(anomalous, flags),
        share(flags, anomalous) if told else Bounds(),
        missed / total if told and total else math.nan,
        bothered / total if told and total else math.nan,
    )


def lacking(counted: Sequence[Counted], rate: float) -> int:
    """How many more genuine accounts must be judged before a rate can be promised: until (n + 1) rate is 1.

    At least one of them must have been allowed, since the others alone say nothing of a share.
    """
    allowed = any(c.genuine is not None and c.decision == "allow" for c in counted)
    return max(math.ceil(1 / rate - 1e-9) - 1 - judged_genuine(counted), not allowed) if rate > 0 else 0


def judged_genuine(counted: Iterable[Counted]) -> int:
    """How many accounts people call genuine."""
    return sum(c.accounts for c in counted if c.genuine)


def meant(counted: Sequence[Counted]) -> list[float | None]:
    """For each of RATES, the largest rate of the curves that flags no more than that share of genuine accounts.

    Weighted split conformal prediction (Tibshirani et al., "Conformal prediction under covariate shift", 2019): the
    next genuine account counts too, with the weight of a judged one as suspicious as it. If all weigh the same, the
    share of a rate is (k + 1) / (n + 1), with k of n at that rate or below. A flagged answer whose decision nobody has
    judged counts as genuine, to be strict. None for rates that so few accounts cannot promise, and for all while nobody
    has judged any that was allowed.
    """
    if lacking(counted, 1.0):
        return [None] * len(RATES)
    known = {c.decision for c in counted if c.genuine is not None}
    strict = [(c.rate, c.accounts / c.share) for c in counted if c.decision not in known]
    stand = weights(counted)
    genuine = [(c.rate, c.accounts * w) for c, w in zip(counted, stand, strict=True) if c.genuine] + strict
    heavy = [(c.rate, w) for c, w in zip(counted, stand, strict=True) if c.genuine is not None]
    total, heaviest = sum(weight for _, weight in genuine), max(weight for _, weight in heavy)
    shares = []
    for rate in RATES:
        own = max((weight for at, weight in heavy if at <= rate), default=heaviest)
        shares.append((sum(weight for at, weight in genuine if at <= rate) + own) / (total + own))
    return [
        None
        if lacking(counted, a)
        else max((r for r, s in zip(RATES, shares, strict=True) if s <= a * (1 + 1e-9)), default=0.0)
        for a in RATES
    ]


def recalibrated(
    by_account: Sequence[Counted], by_length: Sequence[Counted], top: float, before: Recalibration | None
) -> Recalibration:
    """What rates mean by verdicts, for each class of length.

    A class with enough verdicts of its own goes by these. Another one goes by those on all lengths, where that is
    stricter than the bundle. What neither can promise stays as it was.

    Args:
        by_account: each account by one answer.
        by_length: each account by one answer for each class of length.
        top: the highest rate that is asked; where verdicts are too few for that one, nothing moves.
        before: what holds now; None if the bundle's rates do.
    """
    together = _if_enough(by_account, top)
    rates, accounts = [], []
    for k in range(len(CLASSES)):
        of_class = [c for c in by_length if c.events == k]
        own = _if_enough(of_class, top)
        found = [
            mine if mine is not None else was if every is None else min(every, rate)
            for mine, every, was, rate in zip(own, together, before.meant[k] if before else RATES, RATES, strict=True)
        ]
        rates.append(tuple(accumulate(reversed(found), min))[::-1])
        kept = before.accounts[k] if before and together[-1] is None else 0
        accounts.append(judged_genuine(of_class) if own[-1] is not None else kept)
    return Recalibration(RATES, tuple(rates), tuple(accounts))


def _if_enough(counted: Sequence[Counted], top: float) -> list[float | None]:
    return [None] * len(RATES) if lacking(counted, top) else meant(counted)
