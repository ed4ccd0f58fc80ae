"""What a model promises to genuine accounts, and what the test part shows of it: whole, cut, and without a field."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from service.model.calibration import Evidence
from service.model.false_alarms import RATES, FalseAlarms, place_of
from service.model.policy import Thresholds
from service.model.scorer import Scorer
from training.data.cuts import Cuts, cut_to, in_time_order, labels_of, live_looks
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.quality import rate

GENUINE = "genuine accounts"
BESIDE = "whole, beside the crowd"  # of the test part's other histories, as far as they had happened; the rest is alone
FIRST, LATEST = (1, 2, 3, 5, 10, 20, 64), (5, 10, 20, 64)  # events
GRID = ("whole", *(f"first {k}" for k in FIRST), *(f"latest {k}" for k in LATEST))  # as `cut_to` takes them
MOST_LOOKED_AT = 200  # accounts that are scored again and again, which takes long
Decide = Callable[[Log], Sequence[str]]


def promised(alarms: FalseAlarms, thresholds: Thresholds, whose: str) -> dict[str, Any]:
    """The rates asked for, and what can be expected of them where the fewest accounts tell.

    The share of new genuine accounts above the k-th smallest of n scores has the distribution Beta(n + 1 - k, k) (Vovk,
    "Conditional validity of inductive conformal predictors", 2012); its mean is expected, and 95 % of it lies below the
    upper bound.

    Args:
        whose: the accounts whose share is promised: genuine ones, if there were labels enough. Where nobody said who is
            genuine, what is promised is no false-alarm rate but a contamination share: the share of all accounts, with
            the attackers among them, that is flagged.
    """
    n = int(alarms.accounts.min())
    levels = {}
    for level in ("review", "block"):
        asked = getattr(thresholds, f"{level}_rate")
        if asked is None:
            continue
        place = place_of(asked)
        above = int((n + 1) * RATES[place] + 1e-9) if place >= 0 else 0  # n + 1 - k
        levels[level] = {
            "asked": asked,
            "expected": above / (n + 1),
            "upper": float(beta.ppf(0.95, above, n + 1 - above)) if above else 0.0,
            "lacking": max(int(np.ceil(1 / asked - 1e-9)) - 1 - n, 0) if asked else 0,
        }
    kind = "false-alarm rate" if whose == GENUINE else "contamination share"
    return {"kind": kind, "of": whose, "accounts": n, "looks": alarms.looks, **levels}


def shown(cuts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the test part shows of a promise, from the rows of `by_cut`: of whole histories, and of the worst cut.

    Shares of genuine accounts, with the ends of their 95 % intervals and their number, see `rate`.
    """
    found = {}
    for level, done in (("review", "flagged"), ("block", "blocked")):
        rows = {row["cut"]: row["genuine"][done] for row in cuts if row["genuine"][done]}
        if rows:
            cut = max(rows, key=lambda name: rows[name][0])
            found[level] = {"whole": rows["whole"], "worst": rows[cut], "worst_cut": cut}
    return found


def in_words(promise: Mapping[str, Any]) -> list[str]:
    """A promise in words, a line for each level."""
    lines = []
    for level, done in (("review", "reviewed or blocked"), ("block", "blocked")):
        if level not in promise:
            continue
        found = promise[level]
        if found["lacking"]:
            lines.append(f"{done}: none, since {found['lacking']} accounts are lacking to promise {found['asked']:.1%}")
        else:
            lines.append(
                f"{done}: {found['asked']:.1%} of {promise['of']} at most, {found['expected']:.1%} expected, "
                f"{found['upper']:.1%} if the {promise['accounts']} accounts set aside are unlucky (1 in 20)"
            )
    if promise["kind"] != "false-alarm rate":
        lines.append(f"{promise['of']} hold attackers too, so these are contamination shares and no false-alarm rates")
    return lines


def by_cut(log: Log, labels: Labels, columns: Sequence[str], decide: Decide) -> list[dict[str, Any]]:
    """Shares of genuine accounts and of attackers that are flagged, for each way to show less of a history.

    The latest session is a row of its own where the log has some; to the model it is a cut to the latest events.

    Args:
        log, labels: the histories, of both classes.
        columns: those that may be left out.
        decide: the decisions on the sequences of a log.
    """
    log = in_time_order(log)
    lengths = np.diff(log.offsets)
    whole = Cuts.whole(lengths)
    cuts = {name: cut_to(name, lengths) for name in GRID}
    cuts = {name: cut for name, cut in cuts.items() if name == "whole" or (cut.size < lengths).any()}
    if (latest := Cuts.latest_sessions(log)).start.any():
        cuts["latest session"] = latest
    for k, name in enumerate(columns if len(columns) > 1 else ()):
        cuts[f"without {name}"] = Cuts(whole.of, whole.start, lengths, np.full(len(log), k + 1))
    rows = []
    for name, cut in cuts.items():
        shown = cut.of_log(log, columns)
        rows.append({"cut": name, **shares(np.array(decide(shown)), labels_of(cut, shown, labels))})
    return rows


def shares(decisions: NDArray[np.str_], labels: Labels) -> dict[str, Any]:
    """Shares of genuine accounts, of attackers, and of those of each type that decisions (N,) flag and block."""
    types = np.array([t or "unnamed" for t in labels.types])

    def of(among: NDArray[np.bool_]) -> dict[str, list[float] | None]:
        count = int(among.sum())
        flagged, blocked = (decisions != "allow") & among, (decisions == "block") & among
        return {"flagged": rate(int(flagged.sum()), count), "blocked": rate(int(blocked.sum()), count)}

    genuine, attacker = (labels.known & (labels.label == y) for y in (0, 1))
    kinds = {kind: of(attacker & (types == kind)) for kind in sorted(set(types[attacker].tolist()))}
    return {"genuine": of(genuine), "attackers": of(attacker), "types": kinds}


def over_looks(
    log: Log,
    labels: Labels,
    scorer: Scorer,
    thresholds: Thresholds,
    evidence: Callable[[Log], Evidence],
) -> dict[str, dict[str, list[float] | None]]:
    """Shares of genuine accounts that are flagged and blocked once or more often, scored at each of LOOKS live events.

    Returns:
        for "flagged" and "blocked", the share if each look is decided by itself, and the share if the rate is kept over
        all looks together; the latter is None where thresholds are scores.
    """
    genuine = np.flatnonzero(labels.known & (labels.label == 0))
    log = in_time_order(log.subset(genuine[:: -(-len(genuine) // MOST_LOOKED_AT)]))
    looks = live_looks(np.diff(log.offsets), np.arange(len(log)))
    answers = [a for some in looks.pieces() for a in scorer.scores(evidence(some.of_log(log, ())))]
    decisions = np.array([thresholds.decide(a.score, a.false_alarm_rate) for a in answers])

    def ever(flags: NDArray[np.bool_]) -> list[float] | None:
        return rate(len(np.unique(looks.of[flags])), len(log))

    found = {}
    for level, asked in (("flagged", thresholds.review_rate), ("blocked", thresholds.block_rate)):
        each = decisions != "allow" if level == "flagged" else decisions == "block"
        kept = None
        if asked is not None:
            live = scorer.false_alarms.live_rate
            told = zip(answers, looks.size.tolist(), strict=True)
            kept = ever(np.array([live(a.score, size, a.missing) <= asked for a, size in told]))
        found[level] = {"each": ever(each), "kept": kept}
    return found
