import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.engine.session import ProviderError, Runtime
from service.model.bundle import SCHEMA_VERSION, Bundle, BundleError, sha256
from service.model.scorer import Model, Read


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def rewrite(path: Path, name: str, text: str) -> None:
    """Changes a file and its checksum, as someone would who means harm or knows no better."""
    (path / name).write_text(text)
    edit_manifest(path, lambda m: m["files"].update({name: sha256(path / name)}))


def flip_a_byte(path: Path) -> None:
    raw = bytearray((path / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (path / "model.onnx").write_bytes(raw)


def shift_golden(path: Path) -> None:
    sample = json.loads((path / "golden.jsonl").read_text().splitlines()[0])
    for expected in sample["expected"].values():
        expected["score"] = 1 - expected["score"]
    rewrite(path, "golden.jsonl", json.dumps(sample) + "\n")


def fewer_shares(path: Path) -> None:
    with np.load(path / "ordinary.npz") as kept:
        arrays = {**kept, "share": kept["share"][1:]}
    np.savez(path / "ordinary.npz", **arrays)
    edit_manifest(path, lambda m: m["files"].update({"ordinary.npz": sha256(path / "ordinary.npz")}))


def fewer_rates(path: Path) -> None:
    with np.load(path / "promise.npz") as kept:
        arrays = {**kept, "thresholds": kept["thresholds"][:, :, 1:]}
    np.savez(path / "promise.npz", **arrays)
    edit_manifest(path, lambda m: m["files"].update({"promise.npz": sha256(path / "promise.npz")}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_byte, "model.onnx: damaged, its SHA-256"),
        (lambda p: (p / "encoder.json").unlink(), "encoder.json: missing"),
        (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "manifest.json: damaged"),
        (
            lambda p: edit_manifest(p, lambda m: m.update(schema_version=2)),
            f"schema version 2, this release reads {SCHEMA_VERSION}; fit it again with `recguard-train fit`",
        ),
        (
            lambda p: edit_manifest(p, lambda m: m.update(schema_version=SCHEMA_VERSION + 1)),
            f"schema version {SCHEMA_VERSION + 1}, this release reads {SCHEMA_VERSION}; upgrade recguard",
        ),
        (lambda p: edit_manifest(p, lambda m: m["files"].update({"../x": "0"})), "missing from the bundle"),
        (shift_golden, "golden sample 1 is off"),
        (fewer_shares, "ordinary.npz: made for other rows or columns"),
        (fewer_rates, "promise.npz: made for other columns, lengths or rates"),
        (lambda p: rewrite(p, "model.onnx", "no graph"), "ONNX Runtime cannot load it"),
        (lambda p: edit_manifest(p, lambda m: m["types"].append("one_more")), "encoder and manifest say"),
    ],
)
def test_a_damaged_bundle_is_refused_with_the_reason(
    bundle: Bundle, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    Model.load(Bundle.open(copy), precision="fp32")
    damage(copy)
    with pytest.raises(BundleError, match=says):
        Model.load(Bundle.open(copy), precision="fp32")


def test_cuda_asked_for_and_absent_is_an_error_and_auto_takes_the_cpu(bundle: Bundle) -> None:
    try:
        provider = Model.load(bundle, Runtime("auto")).engine.provider
    except ProviderError:
        pytest.fail("auto must not insist on CUDA")
    if provider == "cuda":
        pytest.skip("this machine has CUDA")
    with pytest.raises(ProviderError, match="RECGUARD_PROVIDER=cuda"):
        Model.load(bundle, Runtime("cuda"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_score_does_not_depend_on_its_neighbours(bundle: Bundle, precision: str) -> None:
    model = Model.load(bundle, precision=precision)
    read = [one for one in model.read([columns_of(s["events"]) for s in bundle.golden()]) if isinstance(one, Read)]
    assert len(read) == len(bundle.golden())
    chunks = [w for one in read for w in one.chunks]
    outputs = model.engine.run(pad(chunks + chunks[:3]))
    together = [j.score for j in model.judge(read, [(outputs, k) for k in range(len(chunks))])]
    for one, among_others in zip(read, together, strict=True):
        rows = [(model.engine.run(chunk[None]), 0) for chunk in one.chunks]
        [alone] = [j.score for j in model.judge([one], rows)]
        assert abs(alone.score - among_others.score) < 1e-3
        assert np.abs(alone.events - among_others.events).max() < 1e-3
