"""A fit whose bundle hides every account: all of it is computed from noisy sums over accounts, see `noise`.

The accounts are dealt out by a hash of their names into three sets: one that the model learns from, one that
calibration and thresholds come from, and one that measures it. Each account is in one, whoever else is in the log, so
each set may spend all of epsilon and delta, and together they spend no more (parallel composition, McSherry, "Privacy
integrated queries", SIGMOD 2009).

The model is simpler than that of `pipeline`. `LEFT_OUT` says what it lacks, and `NOT_COVERED` what else of a log it
tells.
"""

from dataclasses import replace

import numpy as np

from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import Floats, Ids
from service.engine.outputs import Outputs
from service.model.calibration import ALARMS, CHANNELS, Calibration, Evidence
from service.model.cascade import Cascade
from service.model.drift import SCORE_BINS
from service.model.lengths import LEAST
from service.model.ordinary import Ordinary
from service.model.scorer import evidence
from service.model.support import Support
from service.model.tabular import Tabular
from training.config import FitConfig
from training.data.cuts import Cuts, in_time_order, labels_of
from training.data.labels import UNLABELLED, Labels
from training.data.log import Log
from training.data.split import SetAside, check_enough
from training.evaluation.quality import Quality
from training.fit import thresholds
from training.fit.calibration import Told
from training.fit.fitted import Fitted, Released, stage
from training.fit.networks import untrained
from training.fit.noise import Ledger, check_installed, noisy_minimum
from training.fit.private_encoder import VALUES, private_encoder
from training.fit.private_tabular import LINEAR, MEASURES, TABLES, Looks, Tables, fit_private_tabular, fit_tables
from training.fit.private_thresholds import THRESHOLDS, Score, private_false_alarms
from training.fit.sequences import encoded_log, shared_weights

CALIBRATION, SCORES, DECISIONS = "calibration", "histogram of scores", "decisions on the test part"
SHARES = {
    "learned from": {VALUES: 0.2, TABLES: 0.2, MEASURES: 0.1, LINEAR: 0.5},
    "judged by": {CALIBRATION: 0.25, THRESHOLDS: 0.7, SCORES: 0.05},
    "tested on": {DECISIONS: 1.0},
}  # how each set of accounts shares epsilon out; chosen on the logs that training/RESULTS.md has figures of
PENALTY = 10.0  # of a fit where noise is small; more noise needs more
LEAST_SLOPE = 0.05  # of the calibration, so that noise cannot turn the order of scores around
MOST_ODDS = 3.0  # of the linear part in the calibration, to which they are cut while it is fitted
LEFT_OUT = (
    "types of anomalies",
    "the network",
    "columns of vectors",
    "guilt by association",
    "the crowd",
    "pairs of values, what follows what, habits, points of change, stretches of a catalogue, means of items",
    "the alarm on novelty",
    "rates that are kept over all looks at a live window: by rates, no live window is blocked",
    "what known attackers score by length (`support` of an answer)",
)
NOT_COVERED = (
    "the names of columns and how they are read: numbers, categories, identifiers, text, times, spelling of values",
    "settings that somebody chose after a look at the log",
    "other bundles of the same accounts: each spends as much again, also where `--without` leaves some accounts out",
    "how long the fit took, how much memory, and whether it failed",
    "what a fit prints, and what it writes beside the bundle, such as rejected rows",
    "groups of accounts, if they were made from the log: which set an account is in may then hang on others",
    "accounts that one person has beside this one, unless the log calls them by one name",
    "attacks on the last bits of noise: it is drawn as floating-point numbers, by a generator seeded by the system",
)


def fit_privately(log: Log, labels: Labels, parts: SetAside, config: FitConfig) -> Fitted:
    """A model that hides each account of a log, and what that has cost.

    Args:
        parts: which accounts it learns from, and which it is calibrated on; dealt out by name.

    Raises:
        ValueError: delta is too large, or no labels.
        LogError: too few labels.
    """
    check_private(config, labels)
    seconds = dict[str, float]()
    ledgers = {of: Ledger(config.dp_epsilon or 0.0, config.dp_delta or 0.0, shares) for of, shares in SHARES.items()}
    timed = bool(log.events["ts"].is_not_null().any())
    ours, judged = (in_time_order(log.subset(at)) for at in (parts.others, parts.aside))
    known, of_judged = labels.subset(parts.others), labels.subset(parts.aside)
    for some in (known, of_judged):
        check_enough(some)
    ledger = ledgers["learned from"]
    with stage("encoder", seconds):
        encoder = private_encoder(ours, timed, ledger, config.pretrained, config.max_positions)
        looks = looks_at(ours, known, encoder, ledger.rng)
    with stage("linear part", seconds):
        tables = fit_tables(encoder, looks, ledger)
        tabular = fit_private_tabular(encoder, looks, tables, ledger, penalty_of(ledger, LINEAR))
    # a bundle has a graph; that of a network which weighs nothing is small
    model = untrained(encoder, [], 1, replace(config, preset="tiny", layers=1, from_scratch=True))
    with stage("thresholds", seconds):
        calibration, told = _calibrate(encoder, tabular, tables, judged, of_judged, ledgers["judged by"], config)
        asked = thresholds.choose(told.label, np.zeros(len(told.label)), config)
        genuine = judged.subset(np.flatnonzero(of_judged.label == 0))
        score = _scored(genuine, encoder, tabular, calibration)
        lengths, columns = np.diff(genuine.offsets), len(encoder.read)
        alarms = private_false_alarms(lengths, columns, asked, score, calibration.shift, ledgers["judged by"])
    scores, whole = calibration.score(told.evidence), np.arange(len(judged))
    histogram = np.histogram(scores[whole], bins=SCORE_BINS, range=(0, 1))[0].astype(np.float64)
    kept = np.maximum(ledgers["judged by"].noisy(SCORES, histogram, 1.0), 0).round().astype(np.int64)
    return Fitted(
        model=model,
        tabular=tabular,
        encoder=encoder,
        types=[],
        told=told,
        calibration=calibration,
        cascade=_unbounded(),
        support=Support(np.full((len(encoder.read) + 2, len(LEAST), 1), np.nan), alarms),
        usual=None,
        together=None,
        ordinary=_ordinary(encoder, tables),
        thresholds=asked,
        parts=parts,
        f1_threshold=0.5,
        held_out=Quality.of(told.label[whole], scores[whole], 0.5),
        held_out_scores=scores[whole],
        epochs=[],
        config=config,
        clipped={},
        released=Released(ledgers, tables, kept.tolist()),
        seconds=seconds,
    )


def _scored(log: Log, encoder: Encoder, tabular: Tabular, calibration: Calibration) -> Score:
    """Gives the log odds of cuts of a log."""

    def score(cuts: Cuts) -> Floats:
        pieces = (encoded_log(encoder, some.of_log(log, encoder.read)) for some in cuts.pieces())
        return np.concatenate([calibration.weighed(_evidence(some, tabular)) for some in pieces])

    return score


def check_private(config: FitConfig, labels: Labels) -> None:
    """Raises ValueError, with the fix, where a fit could not keep what it promises."""
    check_installed()
    config.check_private()
    if not labels.known.any():
        raise ValueError("--dp-epsilon needs --labels: who is presumed anomalous depends on all others")
    accounts = len(labels.label)
    if config.dp_delta is None or not 0 < config.dp_delta < 1 / accounts:
        raise ValueError(
            f"--dp-delta {config.dp_delta}: with as much, each of the {accounts} accounts might be told in full; give "
            f"one well below 1 / {accounts}, such as {0.1 / accounts:.0e}"
        )


def penalty_of(ledger: Ledger, what: str) -> float:
    """The penalty of a fit, by nothing but its noise: a larger one makes noise smaller, and the fit stiffer."""
    return PENALTY * max(1.0, ledger.multiplier(what))


def looks_at(log: Log, labels: Labels, encoder: Encoder, rng: np.random.Generator) -> Looks:
    """The whole histories of a log in time order, and cuts of them."""
    cuts = Cuts.drawn(np.diff(log.offsets), len(encoder.read), rng)
    cut = cuts.of_log(log, encoder.read)
    of_cut = labels_of(cuts, cut, labels)
    there = np.concatenate((np.ones(len(log), dtype=bool), of_cut.known))
    encoded = encoded_log(encoder, log) + encoded_log(encoder, cut)
    of, label = np.concatenate((np.arange(len(log)), cuts.of)), np.concatenate((labels.label, of_cut.label))
    looks = Looks(encoded, np.ones(len(of)), label, np.arange(len(of)) < len(log)).take(there)
    return replace(looks, weight=shared_weights(of[there], looks.weight))


def _evidence(encoded: list[Encoded], tabular: Tabular) -> Evidence:
    """Evidence of sequences of which the network says nothing, as it weighs nothing."""
    return evidence(encoded, _silent_network, tabular).without_events()


def _silent_network(ids: Ids) -> Outputs:
    nothing = np.zeros(ids.shape[:2], dtype=np.float32)
    return Outputs(nothing[:, 0], nothing[:, :1], nothing, nothing)


def _calibrate(
    encoder: Encoder,
    tabular: Tabular,
    tables: Tables,
    log: Log,
    labels: Labels,
    ledger: Ledger,
    config: FitConfig,
) -> tuple[Calibration, Told]:
    """One slope and offset for the linear part at all lengths, and what they were fitted on, whole histories first."""
    looks = looks_at(log, labels, encoder, ledger.rng)
    found = _evidence(looks.encoded, tabular)
    odds = np.clip(found.linear, -MOST_ODDS, MOST_ODDS)
    features, longest = np.stack((odds, np.ones(len(odds))), axis=1), float(np.hypot(MOST_ODDS, 1.0))
    penalty = penalty_of(ledger, CALIBRATION)
    # towards the linear part's own log odds, as a little data tells
    near, label = np.array([1.0, 0.0]), looks.label
    fitted = noisy_minimum(ledger, CALIBRATION, features, label, looks.weight, penalty, longest, near)
    genuine, attackers = tables.accounts(encoder).tolist()
    share = attackers / (genuine + attackers)
    weights = [max(float(fitted[0]), LEAST_SLOPE) if name == "linear" else 0.0 for name in CHANNELS]
    never = [[0.0] * len(LEAST)] * len(ALARMS)
    calibration = Calibration(
        weights=[weights] * len(LEAST),
        bias=[float(fitted[1])] * len(LEAST),
        fitted_prevalence=share,
        prevalence=share if config.prevalence is None else config.prevalence,
        alarm_weight=never,
        alarm_at=never,
        event_weight=0.0,
    )
    nothing = np.full(len(looks.label), UNLABELLED)
    events = [np.full(e.length, UNLABELLED, dtype=np.int8) for e in looks.encoded]
    return calibration, Told(found, looks.label, nothing, events, looks.weight)


def _unbounded() -> Cascade:
    """A cascade that leaves nothing out."""
    none: list[list[float]] = [[] for _ in LEAST]
    return Cascade(none, none, [1.0] * len(LEAST), [0.0] * len(LEAST), 0.0, 0.0)


def _ordinary(encoder: Encoder, tables: Tables) -> Ordinary:
    """The shares of values among genuine accounts; nothing of pauses, and of how much is of one value."""
    share = np.zeros(encoder.rows, dtype=np.float32)
    for s in encoder.stretches:
        of_field = tables.shares[0, s.start : s.end]
        share[s.start : s.end] = of_field / max(of_field.sum(), 1e-9)
    return Ordinary(share, np.array(np.nan), np.full((len(LEAST), len(encoder.vocabularies)), np.nan))
