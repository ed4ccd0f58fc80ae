"""What a model promises to genuine accounts, and what the test part shows of it: whole, cut, and without a field."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from service.model.false_alarms import RATES, FalseAlarms, place_of
from service.model.policy import Thresholds
from training.data.cuts import Cuts, in_time_order, labels_of
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.quality import rate

GENUINE = "genuine accounts"
FIRST, LATEST = (1, 2, 3, 5, 10, 20), (5, 10, 20, 64)  # events
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
    for level, name in (("review", "genuine_flagged"), ("block", "genuine_blocked")):
        rows = [row for row in cuts if row[name]]
        if rows:
            worst = max(rows, key=lambda row: row[name][0])
            found[level] = {"whole": rows[0][name], "worst": worst[name], "worst_cut": worst["cut"]}
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

    Args:
        log, labels: the histories, of both classes.
        columns: those that may be left out.
        decide: the decisions on the sequences of a log.
    """
    log = in_time_order(log)
    lengths = np.diff(log.offsets)
    whole = Cuts.whole(lengths)
    cuts = {"whole": whole}
    for k in (k for k in FIRST if k < lengths.max()):
        cuts[f"first {k}"] = Cuts(whole.of, whole.start, np.minimum(lengths, k), whole.dropped)
    for k in (k for k in LATEST if k < lengths.max()):
        size = np.minimum(lengths, k)
        cuts[f"latest {k}"] = Cuts(whole.of, lengths - size, size, whole.dropped)
    for k, name in enumerate(columns if len(columns) > 1 else ()):
        cuts[f"without {name}"] = Cuts(whole.of, whole.start, lengths, np.full(len(log), k + 1))
    rows = []
    for name, cut in cuts.items():
        shown = cut.of_log(log, columns)
        rows.append({"cut": name, **shares(np.array(decide(shown)), labels_of(cut, shown, labels))})
    return rows


def shares(decisions: NDArray[np.str_], labels: Labels) -> dict[str, list[float] | None]:
    """Shares of genuine accounts and of attackers that are flagged, with their intervals, see `rate`."""
    genuine, attacker = (labels.known & (labels.label == y) for y in (0, 1))
    flagged, blocked = decisions != "allow", decisions == "block"
    return {
        "genuine_flagged": rate(int((flagged & genuine).sum()), int(genuine.sum())),
        "genuine_blocked": rate(int((blocked & genuine).sum()), int(genuine.sum())),
        "attackers_flagged": rate(int((flagged & attacker).sum()), int(attacker.sum())),
    }
