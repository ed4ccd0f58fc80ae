"""Shows how campaigns of kinds that training never saw are found beside the crowd, and what genuine users suffer by it.

    python tests/bench/together.py --events E --labels L [--seed N] [--sizes 10 30]

A model is fitted on a labelled log. Campaigns of each kind, and surges of genuine interest, are then put among the
genuine users of the test part, one at a time. Each is judged alone, beside the log as far as it had happened, and with
hindsight.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.dataset import Dataset
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.lookalikes import LOOKALIKES
from training.data.surges import NOBODY, SURGES, with_surges
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model


def show(fitted: Fitted, name: str, log: Log, attacks: NDArray[np.bool_]) -> None:
    """Prints shares of the genuine users and of the attackers, and the attackers' recall at 1 % false alarms."""
    for how, beside, hindsight in (("alone", None, False), ("beside", log, False), ("hindsight", log, True)):
        answers = fitted.scorer.scores(fitted.evidence(log, beside, hindsight))
        decided = np.array([fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers])
        score, flagged = np.array([a.score for a in answers]), decided != "allow"
        of_genuine = f"{flagged[~attacks].mean():.3f} {np.mean(decided[~attacks] == 'block'):.3f}"
        of_attacks = "    -     -"
        if attacks.any():
            above = score[attacks] > np.quantile(score[~attacks], 0.99, method="higher")
            of_attacks = f"{flagged[attacks].mean():.3f} {above.mean():.3f}"
        print(
            f"{name:18} {how:10} genuine flagged, blocked {of_genuine}  attackers flagged, at 1 % {of_attacks}",
            flush=True,
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("events", "labels"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 30])
    given = parser.parse_args()
    config = FitConfig(seed=given.seed)
    data = Dataset.read(given.events, given.labels, config)
    fitted = fit_model(data.log, data.labels, data.training, config)
    log, labels = data.log.subset(data.split.test), data.labels.subset(data.split.test)
    show(fitted, "the test part", log, labels.label == 1)
    genuine = log.subset(np.flatnonzero(labels.label == 0))
    nobody = np.zeros(len(genuine), dtype=bool)
    show(fitted, "its genuine users", genuine, nobody)
    for size in given.sizes:
        for kind in LOOKALIKES:
            try:
                attacked, attacks = with_campaign(genuine, kind, size, given.seed)
            except LogError as error:  # as of a kind that needs ratings
                print(error)
                continue
            show(fitted, f"{kind} {size}", attacked, attacks)
    for name in SURGES:
        surged, took_part = with_surges(genuine, [True] * len(genuine), [name], given.seed)
        show(fitted, f"{name}, {takers(took_part)} take part", surged, nobody)


def with_campaign(genuine: Log, kind: str, size: int, seed: int) -> tuple[Log, NDArray[np.bool_]]:
    """The log with one campaign of a kind, and bool (N,), who is of it."""
    config = InjectConfig(campaigns=(size,), size=1.01 * size / len(genuine), seed=seed)
    events, table, _ = inject(genuine, None, config, [kind])
    log = replace(Log.of(events), reading=genuine.reading)
    return log, Labels.of(log.ids, table).label == 1


def takers(took_part: Sequence[str]) -> int:
    return sum(name != NOBODY for name in took_part)


if __name__ == "__main__":
    main()
