"""What the files of a private bundle say beside the model: noisy counts, what was spent, and what is not covered.

Nothing here reads an account but `decisions`, which adds noise.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import MISSING, Bins
from service.encoding.values import Floats
from service.encoding.vocabulary import Vocabulary
from service.model.drift import FieldValues
from training.data.clean import CleaningReport
from training.data.dataset import Dataset
from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.promise import promised
from training.fit import golden
from training.fit.fitted import Fitted, Released
from training.fit.noise import Ledger
from training.fit.private import DECISIONS, LEFT_OUT, NOT_COVERED

TESTED = "tested on"
MADE_UP = 16  # times that golden samples are made up, to measure graphs on
COMPOSED = (
    "Renyi differential privacy of Gaussian noise (Mironov, 2017), as opacus computes it, for the releases of one set "
    "of accounts; the largest of the sets' epsilons for all, as each account is in one (McSherry, 2009)"
)


def sequences(fitted: Fitted) -> list[Encoded]:
    """Made-up sequences, on which graphs are measured and quantised in place of real ones."""
    encoder, idf = fitted.encoder, fitted.tabular.linear.idf
    made = [events for seed in range(MADE_UP) for events in golden.made_up(encoder, idf, seed)]
    return [encoder.encode(*columns_of(events)) for events in made]


def described(fitted: Fitted, released: Released, data: Dataset, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a private model and its training, as `bundle` says it of others."""
    config, tables = fitted.config, released.tables
    return {
        "feature_spec": data.log.kinds,
        "preset": config.preset,
        "config": asdict(config),
        "training_data": {
            "fingerprint": None,  # whoever knows all other accounts could find out by it who the last one is
            "sequences": round(float(tables.accounts(fitted.encoder).sum())),
            "events": None,
            "split": "name",
            "missing": _missing(fitted.encoder, tables.shares.sum(axis=0)),
        },
        "types": [],
        "metrics": {"held_out": None, "test": None},
        "field_values": FieldValues.of_counts(fitted.encoder, tables.shares.sum(axis=0)),
        "validation_scores": released.scores,
        "thresholds": fitted.thresholds.given,
        "promise": {
            **promised(fitted.support.false_alarms, fitted.thresholds, fitted.parts.whose),
            "test": {},
        },
        "calibration": fitted.calibration.to_json(),
        "cascade": fitted.cascade.to_json(),
        "privacy": evaluation["privacy"],
    }


def _missing(encoder: Encoder, counts: Floats) -> dict[str, float]:
    """The share of each column that is missing where it is not all missing; 0 where no field tells."""
    found = dict.fromkeys(encoder.read, 0.0)
    for s in encoder.of("event"):
        if isinstance(s.field, Vocabulary | Bins):
            found[s.field.name] = float(counts[s.start + MISSING] / max(counts[s.start : s.end].sum(), 1e-9))
    return found


def evaluation(fitted: Fitted, released: Released, data: Dataset) -> dict[str, Any]:
    """Everything that the report of a private model shows."""
    test, of_test = data.log.subset(data.split.test), data.labels.subset(data.split.test)
    decided = decisions(fitted, test, of_test, released.ledgers[TESTED])
    return {
        "metrics": None,
        "warnings": [],
        "columns": {name: {"kind": held.kind, "why": "", "doubt": ""} for name, held in data.log.held.items()},
        "cleaning": asdict(CleaningReport()),
        "split": {"how": "name", "train": 0, "test": 0},
        "fields": [{"name": f.name, "kind": f.kind, "rows": f.size} for f in fitted.encoder.fields],
        "epochs": [],
        "suspects": [],
        "privacy": {**statement(released.ledgers), "test": decided},
    }


def statement(ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    """What was promised and spent, on what, and what is not covered; what `ledgers` say of each set of accounts."""
    budget = next(iter(ledgers.values()))
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "spent": {"epsilon": max(ledger.total for ledger in ledgers.values()), "delta": budget.delta},
        "unit": "an account, with all its events and its label: it is in the log or not",
        "composed": COMPOSED,
        "sets": [
            {
                "accounts": of,
                "epsilon": ledger.total,
                "delta_of_names": ledger.of_selection,
                "releases": [{**asdict(s), "share": ledger.shares[s.what]} for s in ledger.spent],
            }
            for of, ledger in ledgers.items()
        ],
        "left_out": list(LEFT_OUT),
        "not_covered": list(NOT_COVERED),
    }


def decisions(fitted: Fitted, log: Log, labels: Labels, ledger: Ledger) -> dict[str, dict[str, int]]:
    """How many genuine accounts and attackers of a test part are allowed, reviewed and blocked, with noise.

    Each is in one cell. Counts are rounded, and at least 0.
    """
    names = ("allow", "review", "block")
    found = np.zeros((2, len(names)))
    if len(log):
        answers = fitted.scorer.scores(fitted.evidence(log))
        for answer, label in zip(answers, labels.label.tolist(), strict=True):
            found[label, names.index(fitted.thresholds.decide(answer.score, answer.false_alarm_rate))] += 1
    noisy: NDArray[np.int64] = np.maximum(ledger.noisy(DECISIONS, found, 1.0), 0).round().astype(np.int64)
    genuine, attackers = (dict(zip(names, row, strict=True)) for row in noisy.tolist())
    return {"genuine": genuine, "attackers": attackers}
