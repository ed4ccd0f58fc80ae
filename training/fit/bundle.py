"""Fits a log and writes the bundle: graphs, encoder, statistics, golden samples, evaluation and report."""

import hashlib
import json
import logging
import platform
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from transformers import set_seed

from service.encoding.columns import columns_of
from service.engine.session import Engine, Runtime
from service.model.bundle import SCHEMA_VERSION, VARIANTS, Bundle, sha256
from service.model.drift import SCORE_BINS, FieldValues
from service.model.scorer import Model, evidence
from training.config import FitConfig
from training.data.clean import CleaningReport, clean_events
from training.data.labels import Labels, read_labels
from training.data.live_windows import at_moments
from training.data.log import Log
from training.data.split import Indices, Split, split
from training.evaluation import report
from training.evaluation.assessment import assess
from training.fit.pipeline import WEIGHTS, Fitted, fit_model, stage
from training.network import export
from training.network.checkpoints import begin, kept, settle, together, world

logger = logging.getLogger(__name__)
MASKED = "masked.safetensors"  # the masked-event model, where there was pretraining; corrects events
GOLDEN, GOLDEN_EVENTS = 8, 200
MOST_DESCRIBED = 20_000  # sequences of training with which traffic is compared
TOLERANCE = {"fp32": 1e-3, "int8": 2e-2, "fp16": 1e-2}  # in probability, over processors and providers
MAX_CHANGE = 0.01  # mean, in probability
LENGTHS = (1, 50, 99)  # percentiles of the training sequences' lengths that a bundle tells


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
        search: finds a better configuration on the training part, see `training.fit.tune`.
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
    with stage("export", fitted.seconds):
        variants = _export_graphs(fitted, log.subset(parts.train), new)
    with stage("evaluation", fitted.seconds):
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
    fitted.tabular.save(new / "statistics.npz")
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
    """Writes the graphs and chooses by measurement: int8 serves the CPU if it is faster and changes scores little.

    A GPU is not at hand here, where fp16 is known to be faster, so there it need only change scores little.
    """
    export.export_onnx(fitted.model, fitted.encoder.deep_slots, folder / VARIANTS["fp32"])
    sequences = fitted.encode(log.subset(np.arange(0, len(log), max(len(log) // 512, 1))))
    export.export_half(fitted.model, fitted.encoder.deep_slots, folder / VARIANTS["fp16"])
    export.quantize(folder / VARIANTS["fp32"], folder / VARIANTS["int8"], sequences[::2])
    chunks = [w for e in sequences for w in e.chunks][:50]
    scores, times = {}, {}
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, Runtime(threads=1))
        scores[precision] = fitted.calibration.score(evidence(sequences, engine.run, fitted.tabular))
        times[precision] = round(export.milliseconds(engine, chunks), 3)
    changes = {name: float(np.abs(scores[name] - scores["fp32"]).mean()) for name in ("int8", "fp16")}
    for name, change in changes.items():
        if change > MAX_CHANGE:
            logger.warning("%s changes scores by %.4f in the mean, so fp32 serves in its place", name, change)
    close = {name for name, change in changes.items() if change <= MAX_CHANGE}
    times.pop("fp16")  # a CPU has no arithmetic for it
    return {
        "cpu": "int8" if "int8" in close and times["int8"] < times["fp32"] else "fp32",
        "cuda": "fp16" if "fp16" in close else "fp32",
        "int8_change": changes["int8"],
        "fp16_change": changes["fp16"],
        "milliseconds": times,
    }


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
        engine = Engine(folder / file)
        encoded = [fitted.encoder.encode(*columns_of(s["events"])) for s in samples]
        answers = fitted.scorer.scores(evidence(encoded, engine.run, fitted.tabular))
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
        quality = assess(
            test, of_test, fitted.evidence(test), fitted.scorer, fitted.thresholds, fitted.f1_threshold, fitted.evidence
        )
    return {
        **quality,
        "thresholds": asdict(fitted.thresholds),
        "cleaning": asdict(cleaning),
        "split": {"how": parts.how, "train": len(parts.train), "test": len(parts.test)},
        "fields": [{"name": f.name, "kind": f.kind, "rows": f.size} for f in fitted.encoder.fields],
        "epochs": fitted.epochs,
    }
