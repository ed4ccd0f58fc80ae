"""How well accounts taken over, and their events, are told: by the whole model, by the network, by the change of hands.

The genuine histories of a log's test part are taken over in pairs, as `recguard-train inject` does.

python tests/bench/foreign.py --bundle bundle --events events.csv --labels labels.csv
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from service.model.bundle import Bundle
from service.model.scorer import Model, evidence
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.cuts import in_time_order
from training.data.dataset import Dataset
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log
from training.fit.sequences import encoded_log


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "events", "labels"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--kind", default="takeover")
    given = parser.parse_args()
    model, data = Model.load(Bundle.open(given.bundle)), Dataset.read(given.events, given.labels, FitConfig())
    genuine = data.log.subset(data.split.test[data.labels.label[data.split.test] == 0])
    events, table, _ = inject(genuine, None, InjectConfig(size=0.45, seed=7), [given.kind])
    log = in_time_order(replace(Log.of(events), reading=data.log.reading))
    label, marks = np.array(Labels.of(log.ids, table).label), log.events["event_label"].to_numpy()
    told = evidence(encoded_log(model.bundle.encoder, log), model.engine.run, model.bundle.tabular)
    calibration, inside = model.bundle.calibration, np.repeat(label == 1, told.lengths)
    score = calibration.score(told)
    for name, value in {"score": score, "foreign": told.foreign, "distance": told.novelty}.items():
        limit = np.quantile(value[label == 0], 0.99)
        print(f"{name}: AUC {roc_auc_score(label, value):.3f}, recall at 1 % {(value[label == 1] > limit).mean():.3f}")
    of_events = {"score": calibration.event_scores(told, score), "foreign": told.foreign_events}
    for name, value in (of_events | {"network": told.events, "change of hands": told.changed}).items():
        parts = zip(np.split(marks, log.offsets[1:-1]), np.split(value, log.offsets[1:-1]), strict=True)
        each = np.mean([roc_auc_score(truth, said) for truth, said in parts if 0 < truth.sum() < len(truth)])
        pooled = roc_auc_score(marks[inside], value[inside])
        print(f"events, {name}: AUC {pooled:.3f} over all such accounts, {each:.3f} within one in the mean")
    low, high = np.quantile(of_events["score"][~inside], (0.5, 0.99))
    print(f"events of genuine accounts: score {low:.3f} in the median, {high:.3f} at the 99th percentile")


if __name__ == "__main__":
    main()
