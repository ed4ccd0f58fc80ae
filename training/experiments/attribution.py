"""Tests whether events are blamed rightly: the score should fall fastest when the blamed events are removed.

The curve is the deletion metric of Petsiuk, Das and Saenko, "RISE", BMVC 2018.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded
from service.encoding.usage import Usage
from service.encoding.values import Columns, Floats
from service.model.calibration import CHANNELS, Evidence, logit
from service.model.lengths import bins
from service.model.reasons import Explainer, blamed
from service.model.scorer import Score, evidence
from service.model.topics import Topics
from training.data.log import Log
from training.network.finetune import run_torch

if TYPE_CHECKING:
    from training.fit.fitted import Fitted

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)  # of a sequence's events taken away
SHORTEST = 10  # shorter sequences are not tried
MOST = 40  # sequences tried
STEPS = 16  # of the integral
TOLD = 5  # reasons of each sequence
ORDERS = ("event scores", "reasons", "integrated gradients", "at random")  # in which events are taken away


def deletion_curves(fitted: "Fitted", log: Log, tried: Sequence[int]) -> dict[str, list[float]]:
    """Mean log odds of the score with each of SHARES taken away, for each order of taking events away.

    Args:
        tried: positions in the log of detected sequences; the first MOST that are long enough are used.
    """
    rng = np.random.default_rng(0)
    long = [i for i in tried if log.offsets[i + 1] - log.offsets[i] >= SHORTEST][:MOST]
    sequences = [log.sequence(i) for i in long]
    if not long:
        return {name: [] for name in ORDERS}
    encoded = [fitted.encoder.encode(columns, length) for columns, length in sequences]
    found = evidence(encoded, run_torch(fitted.model), fitted.tabular)
    answers = fitted.scorer.scores(found)
    blames = {
        "event scores": [answer.events for answer in answers],
        "reasons": by_reasons(fitted, sequences, encoded, found, answers),
        "integrated gradients": [integrated_gradients(fitted, e) for e in encoded],
        "at random": [rng.random(e.length) for e in encoded],
    }
    curves = {}
    for name in ORDERS:
        reduced = []
        for (columns, length), blame in zip(sequences, blames[name], strict=True):
            ranked = np.argsort(-blame, kind="stable")
            for share in SHARES:
                left = np.sort(ranked[round(share * length) :])
                reduced.append(fitted.encoder.encode({n: [v[i] for i in left] for n, v in columns.items()}, len(left)))
        scores = fitted.calibration.score(evidence(reduced, run_torch(fitted.model), fitted.tabular))
        odds = np.array([logit(s) for s in np.clip(scores, 1e-9, 1 - 1e-9)])
        curves[name] = odds.reshape(-1, len(SHARES)).mean(axis=0).tolist()
    return curves


def by_reasons(
    fitted: "Fitted",
    sequences: Sequence[tuple[Columns, int]],
    encoded: Sequence[Encoded],
    found: Evidence,
    answers: Sequence[Score],
) -> list[Floats]:
    """Float64 (T,) of each sequence: what the reasons that speak against it add, divided among the events they name."""
    explainer = Explainer(fitted.encoder, fitted.tabular, fitted.calibration, fitted.ordinary, Topics(fitted.encoder))
    told = zip(sequences, encoded, answers, strict=True)
    return [
        blamed(explainer.reasons(one, found.take(np.array([at])), answer.score, given, TOLD), one.length)
        for at, (given, one, answer) in enumerate(told)
    ]


def integrated_gradients(fitted: "Fitted", encoded: Encoded) -> Floats:
    """Float64 (T,): what each event adds to the score, by integrated gradients (Sundararajan et al., ICML 2017).

    For the network, captum computes them, starting from bags that hold only their role. For the linear part, it is the
    weight of the events' values.
    """
    from captum.attr import LayerIntegratedGradients

    [bin_] = bins(np.array([encoded.length])).tolist()
    weight = dict(zip(CHANNELS, fitted.calibration.weights[bin_], strict=True))
    blame = np.zeros(encoded.length)
    ids = torch.from_numpy(pad(encoded.chunks))
    role = ids.clone()
    role[:, :, 1:] = 0
    fitted.model.eval()
    gradients = LayerIntegratedGradients(lambda x: fitted.model(x).sequence_logit, fitted.model.table)
    of_bags = gradients.attribute(ids, baselines=role, n_steps=STEPS, internal_batch_size=64).sum(dim=(2, 3)).numpy()
    with torch.inference_mode():
        share = fitted.model(ids).sequence_logit.softmax(dim=0).numpy()  # of each chunk in the pooled logit
    for row, owner, part in zip(of_bags, encoded.owners, share, strict=True):
        at = np.flatnonzero(owner >= 0)
        np.add.at(blame, owner[at], weight["network"] * part * row[at])
    at = np.flatnonzero(encoded.belongs >= 0)
    of_linear = fitted.tabular.linear.contributions(encoded, Usage.of([encoded])).sum(axis=1)
    np.add.at(blame, encoded.belongs[at], weight["linear"] * of_linear[at])
    return blame
