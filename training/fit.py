"""One fit, from clean log to calibrated model and on to the bundle; `evaluation` repeats the first half over folds."""

import hashlib
import json
import logging
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from transformers import set_seed

from service.bundle import SCHEMA_VERSION, VARIANTS, Bundle, sha256
from service.calibration import Calibration
from service.encoding import Encoded, Encoder
from service.engine import Engine
from service.scoring import Model, columns_of, evidence
from service.thresholds import Thresholds
from service.windows import SequenceLogits, pad
from training import export, report
from training.calibration import UNLABELLED, fit_calibration
from training.config import PRESETS, FitConfig, pretrained_directory
from training.features import clipped, column_kinds, fit_encoder
from training.finetune import Example, finetune, fit_novelty, run_torch
from training.log import CleaningReport, Labels, Log, clean_events, read_labels
from training.metrics import Metrics, best_f1_threshold, metrics, threshold_at_fpr
from training.model import BehaviourBert, load_pretrained
from training.split import Indices, Split, split
from training.wide import fit_wide

logger = logging.getLogger(__name__)
GOLDEN, GOLDEN_EVENTS = 8, 200
TOLERANCE = {"fp32": 1e-3, "int8": 2e-2}  # in probability, over processors and providers
MAX_INT8_AUC_LOSS = 0.002


@dataclass
class Fitted:
    """What a fit leaves: a model with its encoder, calibration and thresholds, and how it did on validation data."""

    model: BehaviourBert
    encoder: Encoder
    kinds: dict[str, str]
    types: list[str]
    calibration: Calibration
    thresholds: Thresholds
    f1_threshold: float
    validation: Metrics
    training: dict[str, float]
    clipped: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)

    def encode(self, log: Log) -> list[Encoded]:
        return [self.encoder.encode(columns, length) for columns, length in log.sequences()]

    def evidence(self, log: Log) -> list[SequenceLogits]:
        return evidence(self.encode(log), run_torch(self.model))

    def scores(self, found: list[SequenceLogits]) -> NDArray[np.float64]:
        return np.array([self.calibration.score(e) for e in found])


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    logger.info("%s ...", name)
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    logger.info("%s: %.1f s", name, seconds[name])


def fit_model(
    log: Log, labels: Labels, train: Indices, validation: Indices, config: FitConfig, quiet: bool = True
) -> Fitted:
    """Learns encoder, linear part, network, novelty, calibration and thresholds from the given sequences."""
    preset = PRESETS[config.preset]
    seconds: dict[str, float] = {}
    kinds = column_kinds(log.events)
    train_log = log.subset(train)
    with _stage("encoder", seconds):
        needs_words = preset.pretrained or "text" in kinds.values()
        source = pretrained_directory(config.pretrained) if needs_words else ""
        tokenizer = Tokenizer.from_file(str(Path(source) / "tokenizer.json")) if "text" in kinds.values() else None
        encoder = fit_encoder(train_log, kinds, tokenizer, config.window)
        types = sorted({t for t in labels.subset(train).types if t})
        parts = {
            name: _examples(log, labels, encoder, types, at)
            for name, at in (("train", train), ("validation", validation))
        }
    set_seed(config.seed)
    model = BehaviourBert(encoder.rows, max(len(types), 1), preset, config.window, config.dropout)
    if preset.pretrained:
        load_pretrained(model, encoder, source)
        model.center_states(torch.from_numpy(pad([w for e in parts["train"] for w in e.encoded.windows][:128])))
    with _stage("linear part", seconds):
        sequences = [e.encoded for e in parts["train"]]
        kinds_of = np.array([e.type for e in parts["train"]])
        wide = fit_wide(sequences, labels.label[train], kinds_of, encoder.rows, max(len(types), 1))
        model.wide_rows.copy_(torch.from_numpy(wide))
    with _stage("fine-tuning", seconds):
        training = finetune(model, encoder, parts["train"], parts["validation"], config, quiet)
    with _stage("novelty", seconds):
        fit_novelty(model, [e.encoded for e in parts["train"] if e.label == 0])
    with _stage("calibration", seconds):
        label = labels.label[validation]
        found = evidence([e.encoded for e in parts["validation"]], run_torch(model))
        calibration = fit_calibration(found, label, [e.events for e in parts["validation"]], config.prevalence)
        score = np.array([calibration.score(e) for e in found])
        review = threshold_at_fpr(label, score, config.review_fpr)
        block = max(threshold_at_fpr(label, score, config.block_fpr), review)
        f1_threshold = best_f1_threshold(label, score)
    return Fitted(
        model,
        encoder,
        kinds,
        types,
        calibration,
        Thresholds(review, block),
        f1_threshold,
        metrics(label, score, f1_threshold),
        training,
        clipped(train_log, encoder),
        seconds,
    )


def _examples(log: Log, labels: Labels, encoder: Encoder, types: list[str], at: Indices) -> list[Example]:
    """What training reads of the sequences at the given positions; a normal sequence's events are normal."""
    number = {name: i for i, name in enumerate(types)}
    examples = []
    for i in at:
        columns, length = log.sequence(int(i))
        given = columns.get("event_label")
        if given is not None:
            events = np.array([UNLABELLED if v is None else v for v in given], dtype=np.int8)
        else:
            events = np.full(length, UNLABELLED if labels.label[i] else 0, dtype=np.int8)
        kind = number.get(labels.types[i] or "", UNLABELLED)
        examples.append(Example(encoder.encode(columns, length), int(labels.label[i]), kind, events))
    return examples


def fit_bundle(
    events: Path,
    label_file: Path,
    out: Path,
    config: FitConfig,
    columns: dict[str, str] | None = None,
    name: str | None = None,
    quiet: bool = True,
) -> Bundle:
    """Fits on a log and writes a bundle; what stood at `out` before is replaced only by a whole new one.

    Raises:
        LogError: the log or the labels cannot be used.
    """
    start = time.perf_counter()
    set_seed(config.seed)
    log, cleaning = clean_events(events, columns, config.max_bad_share, out.with_name(out.name + ".rejected.csv"))
    labels = read_labels(label_file, log, cleaning, config.max_bad_share)
    parts = split(log, labels, config.validation_share, config.test_share, config.seed)
    logger.info(
        "%d sequences, %d events; split by %s into %d, %d, %d",
        len(log),
        log.events.height,
        parts.how,
        *map(len, (parts.train, parts.validation, parts.test)),
    )
    fitted = fit_model(log, labels, parts.train, parts.validation, config, quiet)
    cleaning.clipped = fitted.clipped
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with _stage("export", fitted.seconds):
        variants = _export_graphs(fitted, log, labels, parts, new)
    test_score = fitted.scores(fitted.evidence(log.subset(parts.test)))
    fingerprint = hashlib.sha256((sha256(events) + sha256(label_file)).encode()).hexdigest()
    evaluation = _evaluation(fitted, log, labels, parts, test_score, cleaning)
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
        "preset": config.preset,
        "config": asdict(config),
        "training_data": {
            "fingerprint": fingerprint,
            "sequences": len(log),
            "events": log.events.height,
            "split": parts.how,
        },
        "types": fitted.types,
        "metrics": {"validation": fitted.validation.to_json(), "test": evaluation["metrics"]},
        "validation_scores": evaluation["validation_scores"],
        "thresholds": asdict(fitted.thresholds),
        "calibration": fitted.calibration.to_json(),
        "variants": variants,
    }
    _write_encoder(fitted, new)
    _write_golden(fitted, log.subset(parts.validation), new)
    (new / "report.html").write_text(report.render(manifest, evaluation))
    manifest["files"] = {p.name: sha256(p) for p in sorted(new.iterdir()) if p.name != "manifest.json"}
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for precision in VARIANTS:
        Model.load(Bundle.open(new), precision=precision)  # what is written must serve
    if out.exists():
        shutil.rmtree(out)
    new.rename(out)
    return Bundle.open(out)


def _write_encoder(fitted: Fitted, folder: Path) -> None:
    (folder / "encoder.json").write_text(json.dumps(fitted.encoder.to_json()))
    if fitted.encoder.tokenizer is not None:
        fitted.encoder.tokenizer.save(str(folder / "tokenizer.json"))


def _export_graphs(fitted: Fitted, log: Log, labels: Labels, parts: Split, folder: Path) -> dict[str, Any]:
    """Writes the graphs and chooses by measurement: int8 serves the CPU if it is faster and ranks as well."""
    export.export_onnx(fitted.model, fitted.encoder.slots, folder / VARIANTS["fp32"])
    calibration_set = fitted.encode(log.subset(parts.train[:: max(len(parts.train) // 256, 1)]))
    export.quantize(folder / VARIANTS["fp32"], folder / VARIANTS["int8"], calibration_set)
    sequences = fitted.encode(log.subset(parts.validation))
    label = labels.label[parts.validation]
    windows = [w for e in sequences for w in e.windows][:50]
    auc, times = {}, {}
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, "cpu", threads=1)
        score = [fitted.calibration.score(e) for e in evidence(sequences, engine.run)]
        auc[precision] = float(roc_auc_score(label, score))
        times[precision] = round(export.milliseconds(engine, windows), 3)
    good = auc["int8"] >= auc["fp32"] - MAX_INT8_AUC_LOSS
    if not good:
        logger.warning(
            "int8 ranks worse on validation data (AUC %.4f, fp32 %.4f), so fp32 serves the CPU",
            auc["int8"],
            auc["fp32"],
        )
    chosen = "int8" if good and times["int8"] < times["fp32"] else "fp32"
    return {"cpu": chosen, "cuda": "fp32", "validation_auc": auc, "milliseconds": times}


def _write_golden(fitted: Fitted, validation: Log, folder: Path) -> None:
    """Keeps a few validation sequences, without ids, with what each variant says of them."""
    reads = fitted.encoder.columns
    order = np.argsort(np.diff(validation.offsets), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(GOLDEN, len(order))).astype(int)]
    samples: list[dict[str, Any]] = []
    for i in chosen:
        columns, length = validation.sequence(int(i))
        shown = range(min(length, GOLDEN_EVENTS))
        samples.append(
            {
                "events": [{c: v[t] for c, v in columns.items() if c in reads and v[t] is not None} for t in shown],
                "expected": {},
            }
        )
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, "cpu")
        encoded = [fitted.encoder.encode(columns_of(s["events"]), len(s["events"])) for s in samples]
        for sample, found in zip(samples, evidence(encoded, engine.run), strict=True):
            sample["expected"][precision] = {
                "score": fitted.calibration.score(found),
                "events": fitted.calibration.event_scores(found).tolist(),
                "tolerance": TOLERANCE[precision],
            }
    (folder / "golden.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))


def _evaluation(
    fitted: Fitted, log: Log, labels: Labels, parts: Split, score: NDArray[np.float64], cleaning: CleaningReport
) -> dict[str, Any]:
    """All that the report shows, as plain data."""
    validation_score = fitted.scores(fitted.evidence(log.subset(parts.validation)))
    return {
        "metrics": metrics(labels.label[parts.test], score, fitted.f1_threshold).to_json(),
        "thresholds": asdict(fitted.thresholds),
        "sequences": [log.ids[i] for i in parts.test],
        "label": labels.label[parts.test].tolist(),
        "type": [labels.types[i] for i in parts.test],
        "score": score.tolist(),
        "validation_scores": np.histogram(validation_score, bins=20, range=(0, 1))[0].tolist(),
        "cleaning": asdict(cleaning),
        "split": {
            "how": parts.how,
            "train": len(parts.train),
            "validation": len(parts.validation),
            "test": len(parts.test),
        },
        "fields": [{"name": f.name, "kind": f.kind, "rows": f.size} for f in fitted.encoder.fields],
        "training": fitted.training,
    }
