"""Fits a model on a log and writes the bundle: graphs, encoder, statistics, golden samples, evaluation and report.

`pipeline` does the fit; this module writes what it returns.
"""

import json
import logging
import platform
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from transformers import set_seed

from service.encoding import vectors
from service.encoding.columns import columns_of
from service.encoding.encoder import Encoded
from service.engine.session import Engine, Runtime
from service.model.bundle import CODEBOOKS, SCHEMA_VERSION, VARIANTS, Bundle, sha256
from service.model.drift import SCORE_BINS, FieldValues
from service.model.scorer import Model, evidence
from training.config import FitConfig
from training.data.dataset import Dataset
from training.data.labels import Labels
from training.data.log import Log, said_of
from training.data.read import AS_FOUND, ReadOptions
from training.data.split import Indices
from training.evaluation import report
from training.evaluation.assessment import assess
from training.evaluation.promise import BESIDE, GENUINE, promised, shares, shown
from training.fit import golden, private_bundle
from training.fit.fitted import Fitted, stage
from training.fit.holders import blanked
from training.fit.networks import WEIGHTS
from training.fit.pipeline import fit_model
from training.network import export
from training.network.checkpoints import begin, note_settings, rank_and_size, resumable, wait_for_all

logger = logging.getLogger(__name__)
MASKED = "masked.safetensors"  # the masked-event model, if there was pretraining; it corrects events
MOST_DESCRIBED = 20_000  # training sequences that live traffic is compared with
TOLERANCE = {"fp32": 1e-3, "int8": 2e-2, "fp16": 1e-2}  # of probabilities, across processors and providers
MAX_CHANGE = 0.01  # largest mean change of a probability by a smaller precision
MAX_MOVED = 0.005  # largest share of decisions that it may change, since thresholds are chosen at full precision


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
    how: ReadOptions = AS_FOUND,
) -> Bundle:
    """Fits on a log and writes a bundle; an old bundle at `out` is replaced only once the new one is complete.

    Args:
        search: finds a better configuration on the training part, see `training.fit.tune`.
        resume: whether to go on where an earlier call for the same `out` was interrupted.
        how: what the files do not tell by themselves.

    Raises:
        LogError: the log or the labels cannot be used.
        ResumeError: the earlier call was for other data or settings.
        ValueError: differential privacy is asked for, and what breaks it.
    """
    set_seed(config.seed)
    config.check_private(tune=search is not None, resume=resume)
    data = Dataset.read(events, label_file, config, columns, out.with_name(out.name + ".rejected.csv"), how)
    parts = data.split
    divided = f"; split by {parts.how} into {len(parts.train)} and {len(parts.test)}" if label_file else ", no labels"
    logger.info("%d sequences, %d events%s", len(data.log), data.log.events.height, divided)
    state = unfinished(out)
    # nothing goes on from a private fit, and a checksum could tell who was in the log
    found = begin(state, "" if config.private else data.fingerprint, config, resume)
    if search is not None:
        config = found or search(data.log, data.labels, data.training, config)
        note_settings(state, config)
    start = time.perf_counter()
    try:
        with resumable(state), said_of(events):
            fitted = fit_model(data.log, data.labels, data.training, config, quiet)
    finally:
        if config.private:
            shutil.rmtree(state)
    if rank_and_size()[0] == 0:
        write_bundle(fitted, data, out, name, start)
        shutil.rmtree(state, ignore_errors=config.private)
    wait_for_all()
    return Bundle.open(out)


def unfinished(out: Path) -> Path:
    """The folder for intermediate results until the bundle at `out` is written."""
    return out.with_name(out.name + ".fit")


def write_bundle(
    fitted: Fitted, data: Dataset, out: Path, name: str | None, start: float, more: Mapping[str, Any] | None = None
) -> Bundle:
    """Writes a fitted model as a bundle; it replaces what is at `out` once it is complete and can serve.

    Args:
        start: when fitting began, by `time.perf_counter`.
        more: entries for the manifest.
    """
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    train = data.log.subset(data.split.train)
    with stage("export", fitted.seconds):
        variants = _export_graphs(fitted, _shown_to_graphs(fitted, data.log), new)
    with stage("evaluation", fitted.seconds):
        evaluation = _evaluation(fitted, data)
    evaluation["cost"] = {
        "seconds": round(time.perf_counter() - start, 1),
        "stages": fitted.seconds,
        "peak_memory_mb": round(max(map(_peak_memory, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))) / 1024),
        "milliseconds_per_window": variants["milliseconds"],
        "processor": platform.processor() or platform.machine(),
    }
    (new / "evaluation.json").write_text(json.dumps(evaluation, indent=1))
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name or out.name,
        "version": f"{datetime.now(UTC):%Y-%m-%d}.{sha256(new / 'model.onnx')[:8]}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **_described(fitted, data, evaluation),
        "variants": variants,
        **(more or {}),
    }
    _write_parts(fitted, new)
    _write_golden(fitted, train, new)
    (new / "report.html").write_text(report.render(manifest, evaluation))
    manifest["files"] = {p.name: sha256(p) for p in sorted(new.iterdir()) if p.name != "manifest.json"}
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for precision in VARIANTS:
        Model.load(Bundle.open(new), precision=precision)  # check that it can serve
    if out.exists():
        shutil.rmtree(out)
    new.rename(out)
    return Bundle.open(out)


def _described(fitted: Fitted, data: Dataset, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a model and its training."""
    if fitted.released is not None:
        return private_bundle.described(fitted, fitted.released, data, evaluation)
    train = data.log.subset(data.split.train)
    described = fitted.encode(train.subset(_spread(np.arange(len(train)))))
    if fitted.config.anonymous:  # a row that counts for nothing is held by too few
        described = blanked(described, fitted.tabular.linear.idf == 0)
    return {
        "feature_spec": data.log.kinds,
        "preset": fitted.config.preset,
        "config": asdict(fitted.config),
        "training_data": {
            "fingerprint": data.fingerprint,
            "sequences": len(data.log),
            "events": data.log.events.height,
            "split": data.split.how,
            "missing": {
                name: data.log.events[name].null_count() / data.log.events.height for name in fitted.encoder.read
            },
        },
        "types": fitted.types,
        "metrics": {
            "held_out": fitted.held_out.to_json() if data.labels.known.any() else None,
            "test": evaluation["metrics"],
        },
        "field_values": FieldValues.learn(fitted.encoder, described),
        "validation_scores": np.histogram(fitted.held_out_scores, bins=SCORE_BINS, range=(0, 1))[0].tolist(),
        "thresholds": fitted.thresholds.given,
        "promise": {
            **promised(fitted.support.false_alarms, fitted.thresholds, fitted.parts.whose),
            "test": shown(evaluation["cuts"]),
        },
        "calibration": fitted.calibration.to_json(),
        "cascade": fitted.cascade.to_json(),
    }


def _spread(at: Indices) -> Indices:
    """At most MOST_DESCRIBED of the positions, spread evenly from first to last."""
    return at[:: -(-len(at) // MOST_DESCRIBED) or 1]


def _write_parts(fitted: Fitted, folder: Path) -> None:
    """Writes all parts of a model except its graphs."""
    (folder / "encoder.json").write_text(json.dumps(fitted.encoder.to_json()))
    if fitted.encoder.reading.codebooks:
        vectors.save(folder / CODEBOOKS, fitted.encoder.reading.codebooks)
    if fitted.encoder.tokenizer is not None:
        fitted.encoder.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / WEIGHTS).write_bytes(
        save(fitted.model.state_dict())
    )  # save_file would make it readable only for its owner
    if fitted.masked is not None:
        (folder / MASKED).write_bytes(save(fitted.masked.state_dict()))
    fitted.tabular.save(folder / "statistics.npz")
    fitted.ordinary.save(folder / "ordinary.npz")
    fitted.support.save(folder / "promise.npz")
    if fitted.usual is not None and fitted.together is not None:
        fitted.usual.save(folder / "crowd.npz")
        fitted.together.save(folder / "together.npz")


def _shown_to_graphs(fitted: Fitted, log: Log) -> list[Encoded]:
    """Sequences on which graphs are measured; not of those set aside: thresholds are scores of theirs, so that any
    change at all moves a decision on them."""
    if fitted.released is not None:
        return private_bundle.sequences(fitted)
    log = log.subset(fitted.parts.others)
    return fitted.encode(log.subset(np.arange(0, len(log), max(len(log) // 512, 1))))


def _peak_memory(of: int) -> int:
    """Of this process, or the most of those that it started and that have ended, kB."""
    return resource.getrusage(of).ru_maxrss


def _export_graphs(fitted: Fitted, sequences: list[Encoded], folder: Path) -> dict[str, Any]:
    """Writes the graphs and measures which serve: int8 on the CPU if it is faster and changes scores little.

    For a GPU, fp16 is known to be faster, and no GPU may be available here. So it need only change scores little.
    """
    export.export_onnx(fitted.model, fitted.encoder.deep_slots, folder / VARIANTS["fp32"])
    export.export_half(folder / VARIANTS["fp32"], folder / VARIANTS["fp16"])
    export.quantize(folder / VARIANTS["fp32"], folder / VARIANTS["int8"], sequences[::2])
    chunks = [w for e in sequences for w in e.chunks][:50]
    scores, decisions, times = {}, {}, {}
    for precision, file in VARIANTS.items():
        engine = Engine(folder / file, Runtime(threads=1))
        answers = fitted.scorer.scores(evidence(sequences, engine.run, fitted.tabular))
        scores[precision] = np.array([a.score for a in answers])
        decisions[precision] = np.array([fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers])
        if precision != "fp16":  # a CPU has no arithmetic for it
            times[precision] = round(export.milliseconds(engine, chunks), 3)
    changes, moved, close = {}, {}, set()
    for name in ("int8", "fp16"):
        changes[name] = float(np.abs(scores[name] - scores["fp32"]).mean())
        moved[name] = float((decisions[name] != decisions["fp32"]).mean())
        if changes[name] <= MAX_CHANGE and moved[name] <= MAX_MOVED:
            close.add(name)
        else:
            logger.warning(
                "%s changes scores by %.4f in the mean and %.1f %% of decisions, so fp32 serves in its place",
                name,
                changes[name],
                100 * moved[name],
            )
    return {
        "cpu": "int8" if "int8" in close and times["int8"] < times["fp32"] else "fp32",
        "cuda": "fp16" if "fp16" in close else "fp32",
        "int8_change": changes["int8"],
        "fp16_change": changes["fp16"],
        "int8_decisions": moved["int8"],
        "fp16_decisions": moved["fp16"],
        "milliseconds": times,
    }


def _write_golden(fitted: Fitted, log: Log, folder: Path) -> None:
    """Writes a few sequences without ids, with the answer of each variant to them."""
    if fitted.config.anonymous or fitted.config.private:
        chosen = golden.made_up(fitted.encoder, fitted.tabular.linear.idf, fitted.config.seed)
    else:
        chosen = golden.kept(log, fitted.encoder)
    samples: list[dict[str, Any]] = [{"events": events, "expected": {}} for events in chosen]
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


def _evaluation(fitted: Fitted, data: Dataset) -> dict[str, Any]:
    """Everything that the report shows, as plain data; accounts are called by their places where it is anonymous."""
    if fitted.released is not None:
        return private_bundle.evaluation(fitted, fitted.released, data)
    parts, held, warnings = data.split, {n: h._asdict() for n, h in data.log.held.items()}, data.warnings
    if fitted.config.anonymous:
        # what looks odd is said of single values and accounts
        data, warnings = replace(data, log=data.log.numbered), []
        held = {name: of | {"doubt": ""} for name, of in held.items()}
    test, of_test = data.log.subset(parts.test), data.labels.subset(parts.test)
    quality: dict[str, Any] = {"metrics": None, "sequences": [], "label": [], "type": [], "score": [], "cuts": []}
    if len(test):
        quality = assess(
            test,
            of_test,
            fitted.evidence(test),
            fitted.scorer,
            fitted.thresholds,
            fitted.f1_threshold,
            fitted.encoder.read,
            fitted.evidence,
            fitted.config.fewest,
        )
        if fitted.usual is not None:
            answers = fitted.scorer.scores(fitted.evidence(test, test))
            decisions = np.array([fitted.thresholds.decide(a.score, a.false_alarm_rate) for a in answers])
            quality["cuts"].append({"cut": BESIDE, **shares(decisions, of_test)})
    return {
        **quality,
        "warnings": warnings,
        "columns": held,
        "cleaning": asdict(replace(data.cleaning, clipped=fitted.clipped)),
        "split": {"how": parts.how, "train": len(parts.train), "test": len(parts.test)},
        "fields": [{"name": f.name, "kind": f.kind, "rows": f.size} for f in fitted.encoder.fields],
        "epochs": fitted.epochs,
        "suspects": _suspects(fitted, data.log) if fitted.parts.whose == GENUINE else [],
    }


def _suspects(fitted: Fitted, log: Log) -> list[dict[str, Any]]:
    """Accounts that count as genuine, from which thresholds come, and that score like attackers; the highest first.

    Attackers among them raise the thresholds. To leave out what scores high would break the promise. To have people
    look at it does not (Bashari et al., "Robust conformal outlier detection under contaminated reference data", 2025).
    """
    aside = log.subset(fitted.parts.aside)
    score = fitted.calibration.score(fitted.evidence(aside))
    order = [i for i in np.argsort(-score, kind="stable").tolist() if score[i] >= fitted.f1_threshold]
    if len(order) > fitted.config.review_fpr * len(aside):
        logger.warning(
            "%d of %d accounts that count as genuine and that thresholds come from score like attackers; if they are, "
            "fewer attackers are found: look at them in the report, label them, and fit again",
            len(order),
            len(aside),
        )
    return [{"sequence": aside.ids[i], "score": float(score[i])} for i in order]
