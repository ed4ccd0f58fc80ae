"""What the sliders of a report need: how many accounts of the test part each step of a threshold flags.

The page holds counts only, which `templates/report.js` adds up, so that it stays as small for a million accounts as for
a hundred.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.model.false_alarms import RATES

SCORES = (1.0, 0.9999, 0.999, 0.995, 0.99, 0.98, 0.95, *(round(0.9 - 0.05 * k, 2) for k in range(18)), 0.02, 0.01, 0.0)
PREVALENCES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def prepare(manifest: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data for the page.

    Returns:
        `review` and `block`: what the threshold is ("rate" or "score"), the values that it can take, the milder first
        to flag the fewer, and which of them is in force; `prevalence` likewise. `whose`: the accounts that
        a rate is a share of. `genuine` and `types`: cells of
        [step of review, step of block, accounts], where an account is flagged from that step on.
    """
    given = manifest["thresholds"]
    rates = [given[f"{level}_rate"] for level in ("review", "block") if f"{level}_rate" in given]
    scores = [given[level] for level in ("review", "block") if level in given]
    axes, places = {}, []
    for level in ("review", "block"):
        if level in given:
            values = sorted({*SCORES, *scores}, reverse=True)
            in_force = given[level]
            places.append(np.searchsorted(-np.array(values), -np.array(evaluation["score"])))
        else:
            values = sorted({0.0, *RATES, *rates})
            in_force = given[f"{level}_rate"]
            places.append(np.searchsorted(values, evaluation["false_alarm_rate"]))
        unit = "score" if level in given else "rate"
        axes[level] = {"unit": unit, "values": values, "at": values.index(in_force)}
    label, at = np.array(evaluation["label"]), np.column_stack(places)
    kinds = np.array([kind or "unnamed" for kind in evaluation["type"]])
    prevalence = manifest["config"]["prevalence"] or round(float(label.mean()), 4)
    shares = sorted({*PREVALENCES, prevalence})
    return {
        **axes,
        "whose": manifest["promise"]["of"],
        "prevalence": {"values": shares, "at": shares.index(prevalence)},
        "genuine": _cells(at[label == 0]),
        "types": {kind: _cells(at[(label == 1) & (kinds == kind)]) for kind in sorted(set(kinds[label == 1].tolist()))},
    }


def _cells(places: NDArray[np.int64]) -> list[Sequence[int]]:
    """Int (N, 2) as cells of [step of review, step of block, accounts]."""
    return [[*steps, n] for steps, n in sorted(Counter(map(tuple, places.tolist())).items())]
