"""Fits on one log and shows what share of another log's genuine accounts is flagged, whole, cut, and without a field.

    python tests/bench/false_alarms.py FITTED_EVENTS FITTED_LABELS FRESH_EVENTS FRESH_LABELS [SEED]

Both logs must come from the same process, and share no account.
"""

import sys
from pathlib import Path

from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.log import Log
from training.evaluation.promise import by_cut
from training.fit.pipeline import fit_model


def main(events: str, labels: str, fresh_events: str, fresh_labels: str, seed: str = "0") -> None:
    config = FitConfig(seed=int(seed))
    data = Dataset.read(Path(events), Path(labels), config)
    fresh = Dataset.read(Path(fresh_events), Path(fresh_labels), WHOLE)
    fitted = fit_model(data.log, data.labels, data.training, config)

    def decide(log: Log) -> list[str]:
        answers = fitted.scorer.scores(fitted.evidence(log))
        return [fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers]

    for row in by_cut(fresh.log, fresh.labels, fitted.encoder.read, decide):
        shares = [row["genuine"]["flagged"], row["genuine"]["blocked"], row["attackers"]["flagged"]]
        print(f"{row['cut']:20}", *(f"{share[0]:.4f}" if share else "     -" for share in shares))


if __name__ == "__main__":
    main(*sys.argv[1:])
