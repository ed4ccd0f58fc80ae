"""Asks whether the scores of a bundle tell which accounts it was fitted on: membership inference.

Whoever can tell that an account was in the training log has learned that it was a user of the shop, and how it was
labelled. Two attacks are tried. Both know the label of each account, and the second one also the log and the method,
which is more than most have. What counts is how many members an attacker is sure of: the share that is found while
hardly any stranger is taken for a member (Carlini et al., "Membership inference attacks from first principles", IEEE
S&P 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import norm

from service.encoding.values import Floats
from service.model.bundle import Bundle
from service.model.scorer import evidence
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import SetAside, part_at_random
from training.experiments.compare import RESAMPLES
from training.fit.pipeline import fit_apart
from training.fit.sequences import encoded_log

RATES = (0.001, 0.01, 0.1)  # of strangers who are taken for members
FEWEST_TAKEN = 10  # strangers who must be taken for members at a rate; of fewer, a rate is chance
POINTS = 60  # of a ROC curve
SURE = 1e-9  # probabilities are kept this far from 0 and 1
SHADOW_EPOCHS = 3


def log_odds(bundle: Bundle, log: Log) -> Floats:
    """Float64 (N,): what the bundle says of each sequence, judged alone."""
    engine = bundle.engine(precision="fp32")
    found = evidence(encoded_log(bundle.encoder, log), engine.run, bundle.tabular)
    return _odds(bundle.calibration.score(found))


def _odds(score: Floats) -> Floats:
    return np.asarray(logit(np.clip(score, SURE, 1 - SURE)))


def by_loss(odds: Floats, label: NDArray[np.integer]) -> Floats:
    """How surely each account is scored as it is labelled, float64 (N,): the higher, the likelier a member.

    Minus the loss but for a monotone function (Yeom, Giacomelli, Fredrikson and Jha, "Privacy risk in machine
    learning: analyzing the connection to overfitting", IEEE CSF 2018).
    """
    return np.where(label == 1, odds, -odds)


def by_shadows(surely: Floats, without: Floats) -> Floats:
    """How much surer the bundle is than models that never saw the account, float64 (N,).

    Minus the logarithm of the Gaussian tail, as in the offline attack of Carlini et al. With as few shadow models as
    here, they advise one variance for all accounts.

    Args:
        surely: float64 (N,), `by_loss` of the bundle.
        without: float64 (N, S), the same of S shadow models, two or more of which never saw each account; NaN where one
            was fitted on it.
    """
    mean = np.nanmean(without, axis=1)
    spread = np.sqrt(np.nanmean(np.nanvar(without, axis=1, ddof=1)))
    return np.asarray(-norm.logsf((surely - mean) / max(spread, SURE)))


def shadows(
    log: Log,
    labels: Labels,
    parts: SetAside,
    asked: Sequence[tuple[Log, NDArray[np.integer]]],
    config: FitConfig,
    pairs: int,
    advance: Callable[[str], None],
) -> list[Floats]:
    """Log odds from models that were fitted on random halves of what a bundle was fitted on.

    The two models of a pair share these accounts out between them, so of each account as many models know nothing as of
    any other; of a stranger, one model of each pair is asked.

    Args:
        log, labels, parts: what the bundle was fitted on.
        asked: logs, with the positions in `log` of their accounts, -1 for strangers.
        config: the bundle's; the network is a small one here.

    Returns:
        For each of these logs, float64 (N, 2 * pairs); NaN where a model is not asked.
    """
    found = [np.full((len(of), 2 * pairs), np.nan) for _, of in asked]
    small = replace(config, preset="tiny", layers=0, folds=1, epochs=SHADOW_EPOCHS, pretrain_epochs=0, teacher=None)
    rng = np.random.default_rng(config.seed)
    for pair in range(pairs):
        halves = part_at_random(labels, parts.others, 0.5, config.seed + pair)
        turns = [rng.integers(0, 2, len(of)) for _, of in asked]
        for which, half in enumerate(halves):
            model = fit_apart(log, labels, replace(parts, others=half), replace(small, seed=config.seed + pair))
            for (looked_at, of), turn, odds in zip(asked, turns, found, strict=True):
                other = np.isin(of, halves[1 - which])
                at = np.flatnonzero(other | (~np.isin(of, half) & (turn == which)))
                score = model.calibration.score(model.evidence(looked_at.subset(at)))
                odds[at, 2 * pair + which] = _odds(score)
            advance(f"shadow {2 * pair + which + 1}")
    return found


def of_one_mixture(label: NDArray[np.integer], member: NDArray[np.bool_], seed: int = 0) -> NDArray[np.bool_]:
    """Which accounts to compare, bool (N,): members and strangers of which the same share are attackers.

    Attackers are scored as they are labelled more or less surely than genuine accounts are. Where one side has more of
    them, that would be taken for membership. Strangers are left out at random, and so is a class that one side lacks.
    """
    sides = [np.array([(label[side] == c).sum() for c in (0, 1)]) for side in (member, ~member)]
    both = np.flatnonzero((sides[0] > 0) & (sides[1] > 0))
    kept, rng = member & np.isin(label, both), np.random.default_rng(seed)
    share = (sides[1][both] / sides[0][both]).min(initial=np.inf)
    for c in both.tolist():
        some = np.flatnonzero(~member & (label == c))
        kept[rng.choice(some, min(max(round(share * sides[0][c]), 1), len(some)), replace=False)] = True
    return np.asarray(kept)


def success(told: Floats, member: NDArray[np.bool_], seed: int = 0) -> dict[str, Any]:
    """How well what an attack says, float64 (N,), tells members, bool (N,), from strangers.

    Returns:
        `auc`, and `found`, the share of members that are found at each of RATES: each with the ends of its 95 %
        interval by bootstrap over members and over strangers; None at a rate that so few strangers cannot resolve.
        `curve` is [false positive rate, share found], as far down as they can.
    """
    ours, others, rng = told[member], np.sort(told[~member]), np.random.default_rng(seed)
    resolved = [rate for rate in RATES if rate * len(others) >= FEWEST_TAKEN]
    drawn = [
        _measures(rng.choice(ours, len(ours)), np.sort(rng.choice(others, len(others))), resolved)
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0).tolist()
    auc, *found = [list(of) for of in zip(_measures(ours, others, resolved), low, high, strict=True)]
    taken = np.geomspace(min(FEWEST_TAKEN, len(others)), len(others), POINTS).round()
    rates = [float(count / len(others)) for count in np.unique(taken)]
    return {
        "auc": auc,
        "found": {f"{rate:g}": found[resolved.index(rate)] if rate in resolved else None for rate in RATES},
        "curve": [[rate, share] for rate, share in zip(rates, _measures(ours, others, rates)[1:], strict=True)],
    }


def _measures(ours: Floats, others: Floats, rates: Sequence[float]) -> list[float]:
    """The AUC, and the share of ours above all but that share of the others, which are sorted, for each rate."""
    auc = sum(np.searchsorted(others, ours, side).mean() for side in ("left", "right")) / (2 * len(others))
    above = np.append(-np.inf, others)[::-1]  # by how many of the others lie above it
    return [float(auc), *(float((ours > above[round(rate * len(others))]).mean()) for rate in rates)]
