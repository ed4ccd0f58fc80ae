"""Quality of scores against labels."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from service.model.intervals import wilson

Scores = NDArray[np.float64]
Labels = NDArray[np.int8]
BINS = 15  # bins of the reliability plot
NAMES = {  # names of the measures that pages and the command line show
    "auc": "AUC",
    "average_precision": "average precision",
    "recall_at_1_fpr": "recall at 1 % false positives",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "expected_calibration_error": "expected calibration error",
}


@dataclass(frozen=True)
class Quality:
    """Quality of scores for `sequences` sequences, `anomalous` of them anomalous; the first four are at `threshold`."""

    sequences: int
    anomalous: int
    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    average_precision: float
    recall_at_1_fpr: float
    expected_calibration_error: float

    @classmethod
    def of(cls, label: Labels, score: Scores, threshold: float, flagged: NDArray[np.bool_] | None = None) -> "Quality":
        """All figures for scores against labels of both classes; `flagged` replaces `score >= threshold` if given."""
        flagged = score >= threshold if flagged is None else flagged
        hits = int((flagged & (label == 1)).sum())
        precision = hits / max(int(flagged.sum()), 1)
        recall = hits / int((label == 1).sum())
        return cls(
            sequences=len(label),
            anomalous=int((label == 1).sum()),
            threshold=float(threshold),
            accuracy=float((flagged == (label == 1)).mean()),
            precision=precision,
            recall=recall,
            f1=2 * precision * recall / (precision + recall) if hits else 0.0,
            auc=float(roc_auc_score(label, score)),
            average_precision=float(average_precision_score(label, score)),
            recall_at_1_fpr=recall_at_fpr(label, score, 0.01),
            expected_calibration_error=expected_calibration_error(label, score),
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def reliability(label: Labels, score: Scores) -> tuple[NDArray[np.int64], Scores, Scores]:
    """Number of sequences, mean score and share of anomalies in each non-empty one of BINS equal bins of the score."""
    at = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(at, minlength=BINS)
    used = counts > 0
    means = (np.bincount(at, values, BINS)[used] / counts[used] for values in (score, label))
    return (counts[used], *means)  # type: ignore[return-value]


def expected_calibration_error(label: Labels, score: Scores) -> float:
    """Mean distance between score and share of anomalies in those bins (Guo et al., "On calibration", ICML 2017)."""
    counts, scores, shares = reliability(label, score)
    return float(np.sum(counts * np.abs(scores - shares)) / counts.sum())


def recall_at_fpr(label: Labels, score: Scores, fpr: float) -> float:
    """Largest recall of any threshold whose false-positive rate is at most `fpr`."""
    false_rate, true_rate, _ = roc_curve(label, score, drop_intermediate=False)
    return float(true_rate[false_rate <= fpr].max())


def rate(hits: int, trials: int) -> list[float] | None:
    """A share with the ends of its 95 % interval (Wilson, 1927), and the trials; None if there are no trials."""
    if trials == 0:
        return None
    share = wilson(hits, trials)
    return [share.estimate, share.low, share.high, trials]
