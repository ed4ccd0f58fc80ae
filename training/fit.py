"""One fit, from clean log to calibrated model and on to the bundle; `evaluation` repeats the first half over folds."""

import hashlib
import json
import logging
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from transformers import set_seed

from service.bundle import SCHEMA_VERSION, VARIANTS, Bundle, sha256
from service.calibration import Calibration, Evidence, sigmoid
from service.drift import FieldValues
from service.encoding import Encoded, Encoder
from service.engine import Engine
from service.metrics import SCORE_BINS
from service.scoring import Judge, Model, columns_of, evidence, gather, network_logits
from service.surface import Surface
from service.thresholds import Thresholds
from service.values import EventError
from service.windows import pad
from training import export, report, thresholds
from training.assess import assess
from training.calibration import UNLABELLED, fit_calibration, weigh
from training.checkpoints import begin, kept, settle, together, world
from training.config import FitConfig, pretrained_directory
from training.features import clipped, column_kinds, fit_encoder
from training.finetune import Example, finetune, fit_novelty, run_torch
from training.log import CleaningReport, Labels, Log, clean_events, read_labels
from training.metrics import Metrics, metrics
from training.model import BehaviourBert, carry_over, load_pretrained
from training.moments import at_moments
from training.pretrain import MaskedEvents, pretrain
from training.split import Indices, Split, check_enough, fold_numbers, held_out, split
from training.surface import as_unseen, fit_surface, normal_by_trimming, row_counts

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"  # with which a refit goes on; the service has no use for them
MASKED = "masked.safetensors"  # the masked-event model, where there was pretraining; corrects events
GOLDEN, GOLDEN_EVENTS = 8, 200
MOST_DESCRIBED = 20_000  # sequences of training with which traffic is compared
TOLERANCE = {"fp32": 1e-3, "int8": 2e-2}  # in probability, over processors and providers
MAX_INT8_CHANGE = 0.01  # mean, in probability
LENGTHS = (1, 50, 99)  # percentiles of the training sequences' lengths that a bundle tells
TEACHER_FOLDS = 3
LINEAR_FOLDS = 5  # of the linear part's cross-fitting
FEW_ANOMALIES = 30  # labelled anomalous sequences with which unlabelled ones are not needed
TRUSTED = 0.8  # AUC of the distance from normal, on the labels there are, from which it stands in for missing ones


@dataclass(frozen=True)
class Start:
    """What a refit goes on from: a model's weights, its encoder and its types."""

    weights: Mapping[str, torch.Tensor]
    encoder: Encoder
    types: Sequence[str]

    @classmethod
    def of(cls, bundle: Bundle) -> "Start":
        return cls(load_file(bundle.path / WEIGHTS), bundle.encoder, bundle.types)


@dataclass
class Fitted:
    """What a fit leaves: a model with its encoder, calibration and thresholds, and how it did on what was held out."""

    model: BehaviourBert
    surface: Surface
    encoder: Encoder
    kinds: dict[str, str]
    types: list[str]
    calibration: Calibration
    thresholds: Thresholds
    f1_threshold: float
    held_out: Metrics
    held_out_scores: NDArray[np.float64]
    epochs: list[int]
    config: FitConfig
    clipped: dict[str, int]
    masked: MaskedEvents | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def encode(self, log: Log) -> list[Encoded]:
        return encoded_log(self.encoder, log)

    def evidence(self, log: Log) -> Evidence:
        return evidence(self.encode(log), run_torch(self.model), self.surface)

    @property
    def judge(self) -> Judge:
        return Judge(self.calibration, self.types, self.thresholds)

    @property
    def start(self) -> Start:
        return Start(self.model.state_dict(), self.encoder, self.types)


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    logger.info("%s ...", name)
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    logger.info("%s: %.1f s", name, seconds[name])


def fit_model(
    log: Log, labels: Labels, at: Indices, config: FitConfig, quiet: bool = True, old: Start | None = None
) -> Fitted:
    """Learns encoder, linear part, network, novelty, calibration and thresholds from the sequences at `at`.

    Calibration and thresholds see each sequence as parts see it that were fitted without it (stacking, Wolpert 1992,
    with cross-fitting). The network that is kept is then trained on all of them, for as many epochs as the others
    needed. Where it continues from an old one's, the others still start anew: those weights know the answers for
    sequences that they were trained on, and would look better on them than on new ones.
    """
    seconds: dict[str, float] = {}
    log, labels = log.subset(at), labels.subset(at)
    kinds = column_kinds(log.events)
    config = config.settled
    with _stage("encoder", seconds):
        tokenizer = (
            Tokenizer.from_file(str(_pretrained(config) / "tokenizer.json")) if "text" in kinds.values() else None
        )
        encoder = fit_encoder(log, kinds, tokenizer, config.window, old.encoder if old else None)
        everything = encoded_log(encoder, log)
        presumed = not labels.known.any()
        labels = presume(encoder, everything, labels, config)
        known = np.flatnonzero(labels.known)
        log, labels, encoded = log.subset(known), labels.subset(known), [everything[i] for i in known.tolist()]
        check_enough(labels)
        types = sorted({t for t in labels.types if t})
        examples = examples_of(log, labels, encoded, types)
    with _stage("linear part", seconds):
        surface = fit_surface(
            encoder,
            encoded,
            labels.label,
            np.array([e.type for e in examples]),
            max(len(types), 1),
            fold_numbers(labels, LINEAR_FOLDS, config.seed),
        )
    points = surface.reading.channels
    weights, bias = weigh(points, labels.label)
    if not config.starts_pretrained:  # one that brings knowledge of its own does better to judge on its own
        examples = [replace(e, offset=float(o)) for e, o in zip(examples, points @ weights + bias, strict=True)]
    start = untrained(encoder, everything, len(types), config)
    masked = None
    if config.pretrain_epochs:
        with _stage("pretraining", seconds):
            masked = pretrain(start, encoder, everything, config, quiet)
    if config.teacher is not None:
        with _stage("teacher", seconds):
            examples = taught(examples, labels, encoder, len(types), config, quiet)
    parts = held_out(labels, config.folds, config.held_out_share, config.seed)
    found: list[Evidence] = []
    epochs = []
    with _stage("cross-fitting", seconds):
        fold = np.full(len(examples), -1)
        for number, (_, held) in enumerate(parts):
            fold[held] = number
        unseen = as_unseen(encoder, encoded, row_counts(encoder, encoded), fold)
        for number, (others, held) in enumerate(parts, 1):
            logger.info("network %d of %d: %d sequences, %d held out", number, len(parts), len(others), len(held))
            ours = [examples[i] for i in others]
            theirs = [replace(examples[i], encoded=unseen[i]) for i in held.tolist()]
            model = deepcopy(start)
            epochs.append(finetune(model, encoder, ours, theirs, config, quiet))
            network = network_logits([e.encoded for e in theirs], run_torch(model))
            found.append(gather([encoded[i] for i in held.tolist()], network, surface.reading.take(held)))
    held_back = np.concatenate([held for _, held in parts])
    order = np.argsort(held_back)
    held_back, evidence_held = held_back[order], Evidence.joined(found).take(order)
    label = labels.label[held_back]
    types_held = np.array([examples[i].type for i in held_back])
    calibration = fit_calibration(
        evidence_held, label, types_held, [examples[i].events for i in held_back], config.prevalence
    )
    if len(parts) > 1:
        with _stage("fine-tuning", seconds):
            model = deepcopy(start)
            if old is not None:
                carried = carry_over(model, encoder, types, old.weights, old.encoder, old.types)
                logger.info("%d of %d rows of the table carried over", carried, encoder.deep_rows)
            finetune(model, encoder, examples, [], config, quiet, epochs=round(float(np.median(epochs))))
    fit_novelty(model, [e.encoded for e in examples if e.label == 0])
    score = calibration.score(evidence_held)
    if presumed:
        chosen = thresholds.without_labels(score, config.contamination)
    else:
        chosen = thresholds.choose(label, score, config)
    f1_threshold = thresholds.best_f1(label, score)
    return Fitted(
        model=model,
        surface=surface.surface,
        encoder=encoder,
        kinds=kinds,
        types=types,
        calibration=calibration,
        thresholds=chosen,
        f1_threshold=f1_threshold,
        held_out=metrics(label, score, f1_threshold),
        held_out_scores=score,
        epochs=epochs,
        config=config,
        clipped=clipped(log, encoder),
        masked=masked,
        seconds=seconds,
    )


def taught(
    examples: Sequence[Example], labels: Labels, encoder: Encoder, types: int, config: FitConfig, quiet: bool
) -> list[Example]:
    """The examples with a larger network's probability, which it gives to those it was not trained on.

    Distillation after Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    assert config.teacher is not None
    config = replace(config, preset=config.teacher, teacher=None, layers=0)
    start = untrained(encoder, [e.encoded for e in examples], types, config)
    found = list(examples)
    for others, held in held_out(labels, TEACHER_FOLDS, 0.0, config.seed):
        model, theirs = deepcopy(start), [examples[i] for i in held]
        finetune(model, encoder, [examples[i] for i in others], theirs, config, quiet)
        logits = network_logits([e.encoded for e in theirs], run_torch(model)).deep
        for i, logit in zip(held.tolist(), logits.tolist(), strict=True):
            found[i] = replace(examples[i], taught=float(sigmoid(logit + examples[i].offset)))
    return found


def presume(encoder: Encoder, sequences: Sequence[Encoded], labels: Labels, config: FitConfig) -> Labels:
    """Labels in place of missing ones where there are too few to learn from: what lies far from normal is anomalous.

    The share `contamination` that lies farthest is taken for anomalous and the rest for normal. What is learned from
    that finds more than the distance itself does, since attackers share more than their distance. Where the labels that
    there are say that distance is no sign of anomalies, they stay alone.
    """
    if labels.known.all() or (labels.known & (labels.label == 1)).sum() >= FEW_ANOMALIES:
        return labels
    novelty = normal_by_trimming(encoder, sequences)
    told, of_told = labels.label[labels.known], novelty[labels.known]
    if len(np.unique(told)) == 2 and (trust := float(roc_auc_score(told, of_told))) < TRUSTED:
        logger.warning("unlabelled sequences are left out: distance from normal ranks the labels at AUC %.2f", trust)
        return labels
    farthest = novelty > np.quantile(novelty, 1 - config.contamination)
    logger.info("%d unlabelled sequences are judged by their distance from normal", (~labels.known).sum())
    label = np.where(labels.known, labels.label, farthest).astype(np.int8)
    return replace(labels, known=np.ones_like(labels.known), label=label)


def encoded_log(encoder: Encoder, log: Log) -> list[Encoded]:
    """The log's sequences, encoded; raises EventError where one cannot be."""
    found = []
    for encoded in encoder.encode_all(log.sequences()):
        if isinstance(encoded, EventError):
            raise encoded
        found.append(encoded)
    return found


def _pretrained(config: FitConfig) -> Path:
    return Path(pretrained_directory(config.pretrained))


def untrained(encoder: Encoder, sequences: Sequence[Encoded], types: int, config: FitConfig) -> BehaviourBert:
    """The network before all training; no label has a part in it."""
    set_seed(config.seed)
    model = BehaviourBert(encoder.deep_rows, max(types, 1), config.shape, config.window, config.dropout)
    if config.starts_pretrained:
        load_pretrained(model, encoder, str(_pretrained(config)))
        model.center_states(torch.from_numpy(pad([w for e in sequences for w in e.windows][:128])))
    return model


def examples_of(log: Log, labels: Labels, encoded: Sequence[Encoded], types: list[str]) -> list[Example]:
    """What training reads of the sequences; a normal sequence's events are normal."""
    number = {name: i for i, name in enumerate(types)}
    examples = []
    for i, (sequence, (columns, length)) in enumerate(zip(encoded, log.sequences(), strict=True)):
        given = columns.get("event_label")
        if given is not None:
            events = np.array([UNLABELLED if v is None else v for v in given], dtype=np.int8)
        else:
            events = np.full(length, UNLABELLED if labels.label[i] else 0, dtype=np.int8)
        kind = number.get(labels.types[i] or "", UNLABELLED)
        examples.append(Example(sequence, int(labels.label[i]), kind, events))
    return examples


def fit_bundle(
    events: Path,
    label_file: Path | None,
    out: Path,
    config: FitConfig,
    columns: dict[str, str] | None = None,
    name: str | None = None,
    quiet: bool = True,
    search: Callable[[Log, Labels, Indices, FitConfig], FitConfig] | None = None,
    resume: bool = False,
) -> Bundle:
    """Fits on a log and writes a bundle; what stood at `out` before is replaced only by a whole new one.

    Args:
        search: finds a better configuration on the training part, see `training.tune`.
        resume: go on where an earlier call for the same `out` was interrupted.

    Raises:
        LogError: the log or the labels cannot be used.
        ResumeError: the earlier call was for other data or settings.
    """
    set_seed(config.seed)
    log, cleaning = clean_events(events, columns, config.max_bad_share, out.with_name(out.name + ".rejected.csv"))
    if label_file is None:
        labels = Labels.none(len(log))
        if config.live_window:
            log, labels = at_moments(log, labels, config.live_window, config.seed)
        parts = Split(np.arange(len(log)), np.arange(0), "none")
        logger.info("%d sequences, %d events, no labels", len(log), log.events.height)
    else:
        labels = read_labels(label_file, log, cleaning, config.max_bad_share)
        if config.live_window:
            log, labels = at_moments(log, labels, config.live_window, config.seed)
        parts = split(log, labels, config.test_share, config.seed)
        sizes = len(parts.train), len(parts.test)
        logger.info(
            "%d sequences, %d events; split by %s into %d and %d", len(log), log.events.height, parts.how, *sizes
        )
    rest = np.setdiff1d(np.arange(len(log)), parts.test)
    state, fingerprint = unfinished(out), files_fingerprint(events, label_file)
    found = begin(state, fingerprint, config, resume)
    if search is not None:
        config = found or search(log, labels, rest, config)
        settle(state, config)
    start = time.perf_counter()
    with kept(state):
        fitted = fit_model(log, labels, rest, config, quiet)
    if world()[0] == 0:
        cleaning.clipped = fitted.clipped
        write_bundle(fitted, Data(log, labels, parts, cleaning, fingerprint), out, name, start)
        shutil.rmtree(state)
    together()
    return Bundle.open(out)


def unfinished(out: Path) -> Path:
    """The folder of what is learned, while the bundle at `out` is not written."""
    return out.with_name(out.name + ".fit")


@dataclass(frozen=True)
class Data:
    """What a model was fitted on: log, labels, how they were parted, what cleaning found, the files' fingerprint."""

    log: Log
    labels: Labels
    parts: Split
    cleaning: CleaningReport
    fingerprint: str


def files_fingerprint(events: Path, labels: Path | None) -> str:
    """Names a log and its labels by the files' contents."""
    digests = [sha256(file) for file in (events, labels) if file is not None]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def write_bundle(
    fitted: Fitted, data: Data, out: Path, name: str | None, start: float, more: Mapping[str, Any] | None = None
) -> Bundle:
    """Writes a fitted model as a bundle, which replaces what stood at `out` once it is whole and serves.

    Args:
        start: when fitting began, by `time.perf_counter`.
        more: entries for the manifest.
    """
    log, labels, parts, cleaning = data.log, data.labels, data.parts, data.cleaning
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with _stage("export", fitted.seconds):
        variants = _export_graphs(fitted, log.subset(parts.train), new)
    with _stage("evaluation", fitted.seconds):
        evaluation = _evaluation(fitted, log, labels, parts, cleaning)
    evaluation["cost"] = {
        "seconds": round(time.perf_counter() - start, 1),
        "stages": fitted.seconds,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "milliseconds_per_window": variants["milliseconds"],
        "processor": platform.processor() or platform.machine(),
    }
    (new / "evaluation.json").write_text(json.dumps(evaluation, indent=1))
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name or out.name,
        "version": f"{datetime.now(UTC):%Y-%m-%d}.{sha256(new / 'model.onnx')[:8]}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "feature_spec": fitted.kinds,
        "preset": fitted.config.preset,
        "config": asdict(fitted.config),
        "training_data": {
            "fingerprint": data.fingerprint,
            "sequences": len(log),
            "events": log.events.height,
            "split": parts.how,
            "lengths": np.percentile(np.diff(log.subset(parts.train).offsets), LENGTHS).astype(int).tolist(),
        },
        "types": fitted.types,
        "metrics": {
            "held_out": fitted.held_out.to_json() if labels.known.any() else None,
            "test": evaluation["metrics"],
        },
        "field_values": FieldValues.learn(fitted.encoder, fitted.encode(log.subset(_spread(parts.train)))),
        "validation_scores": np.histogram(fitted.held_out_scores, bins=SCORE_BINS, range=(0, 1))[0].tolist(),
        "thresholds": asdict(fitted.thresholds),
        "calibration": fitted.calibration.to_json(),
        "variants": variants,
        **(more or {}),
    }
    _write_encoder(fitted, new)
    (new / WEIGHTS).write_bytes(save(fitted.model.state_dict()))  # save_file would let none but its writer read it
    if fitted.masked is not None:
        (new / MASKED).write_bytes(save(fitted.masked.state_dict()))
    fitted.surface.save(new / "statistics.npz")
    _write_golden(fitted, log.subset(parts.train), new)
    (new / "report.html").write_text(report.render(manifest, evaluation))
    manifest["files"] = {p.name: sha256(p) for p in sorted(new.iterdir()) if p.name != "manifest.json"}
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for precision in VARIANTS:
        Model.load(Bundle.open(new), precision=precision)  # what is written must serve
    if out.exists():
        shutil.rmtree(out)
    new.rename(out)
    return Bundle.open(out)


def _spread(at: Indices) -> Indices:
    """At most MOST_DESCRIBED of the positions, evenly from first to last."""
    return at[:: -(-len(at) // MOST_DESCRIBED) or 1]


def _write_encoder(fitted: Fitted, folder: Path) -> None:
    (folder / "encoder.json").write_text(json.dumps(fitted.encoder.to_json()))
    if fitted.encoder.tokenizer is not None:
        fitted.encoder.tokenizer.save(str(folder / "tokenizer.json"))


def _export_graphs(fitted: Fitted, log: Log, folder: Path) -> dict[str, Any]:
    """Writes the graphs and chooses by measurement: int8 serves the CPU if it is faster and changes scores little."""
    export.export_onnx(fitted.model, fitted.encoder.deep_slots, folder / VARIANTS["fp32"])
    sequences = fitted.encode(log.subset(np.arange(0, len(log), max(len(log) // 512, 1))))
    export.quantize(folder / VARIANTS["fp32"], folder / VARIANTS["int8"], sequences[::2])
    windows = [w for e in sequences for w in e.windows][:50]
    scores, times = {}, {}
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, "cpu", threads=1)
        scores[precision] = fitted.calibration.score(evidence(sequences, engine.run, fitted.surface))
        times[precision] = round(export.milliseconds(engine, windows), 3)
    change = float(np.abs(scores["int8"] - scores["fp32"]).mean())
    if change > MAX_INT8_CHANGE:
        logger.warning("int8 changes scores by %.4f in the mean, so fp32 serves the CPU", change)
    chosen = "int8" if change <= MAX_INT8_CHANGE and times["int8"] < times["fp32"] else "fp32"
    return {"cpu": chosen, "cuda": "fp32", "int8_change": change, "milliseconds": times}


def _write_golden(fitted: Fitted, log: Log, folder: Path) -> None:
    """Keeps a few sequences, without ids, with what each variant says of them."""
    reads = fitted.encoder.columns
    order = np.argsort(np.diff(log.offsets), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(GOLDEN, len(order))).astype(int)]
    samples: list[dict[str, Any]] = []
    for i in chosen:
        columns, length = log.sequence(int(i))
        shown = range(min(length, GOLDEN_EVENTS))
        samples.append(
            {
                "events": [{c: v[t] for c, v in columns.items() if c in reads and v[t] is not None} for t in shown],
                "expected": {},
            }
        )
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, "cpu")
        encoded = [fitted.encoder.encode(*columns_of(s["events"])) for s in samples]
        answers = fitted.judge.answers(evidence(encoded, engine.run, fitted.surface))
        for sample, answer in zip(samples, answers, strict=True):
            sample["expected"][precision] = {
                "score": answer.score,
                "events": answer.events.tolist(),
                "tolerance": TOLERANCE[precision],
            }
    (folder / "golden.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))


def _evaluation(fitted: Fitted, log: Log, labels: Labels, parts: Split, cleaning: CleaningReport) -> dict[str, Any]:
    """All that the report shows, as plain data."""
    test, of_test = log.subset(parts.test), labels.subset(parts.test)
    quality: dict[str, Any] = {"metrics": None, "sequences": [], "label": [], "type": [], "score": []}
    if len(test):
        quality = assess(test, of_test, fitted.evidence(test), fitted.judge, fitted.f1_threshold, fitted.evidence)
    return {
        **quality,
        "thresholds": asdict(fitted.thresholds),
        "cleaning": asdict(cleaning),
        "split": {"how": parts.how, "train": len(parts.train), "test": len(parts.test)},
        "fields": [{"name": f.name, "kind": f.kind, "rows": f.size} for f in fitted.encoder.fields],
        "epochs": fitted.epochs,
    }
