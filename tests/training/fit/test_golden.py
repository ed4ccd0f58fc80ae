import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.encoding.fields import Bins
from service.encoding.vocabulary import Vocabulary
from service.model.bundle import Bundle, BundleError, sha256
from service.model.scorer import Model
from training.fit.golden import MOST_EVENTS, SAMPLES, _number, made_up


def test_made_up_sequences_have_every_column_and_only_values_that_the_bundle_names(anonymous: Path) -> None:
    bundle = Bundle.open(anonymous / "bundle")
    events = [event for sample in bundle.golden() for event in sample["events"]]
    assert {name for event in events for name in event} == bundle.encoder.columns
    for f in bundle.encoder.vocabularies:
        told = {event[f.name] for event in events if f.name in event}
        assert len(told) > 1
        assert told <= set(f.values)
    lengths = [len(sample["events"]) for sample in bundle.golden()]
    assert (len(lengths), lengths[0], lengths[-1]) == (SAMPLES, 1, MOST_EVENTS)


def test_numbers_between_the_largest_edges_are_finite() -> None:
    drawn = _number(Bins("n", [-1.7e308, 0.0, 1.7e308]), np.random.default_rng(0))
    assert all(np.isfinite(drawn(at)) for at in range(4) for _ in range(50))


def test_they_are_drawn_as_often_as_values_are_held(anonymous: Path) -> None:
    encoder, idf = (bundle := Bundle.open(anonymous / "bundle")).encoder, bundle.tabular.linear.idf
    drawn = [e["device"] for seed in range(20) for s in made_up(encoder, idf, seed) for e in s if "device" in e]
    device = next(f for f in encoder.vocabularies if f.name == "device")
    assert isinstance(device, Vocabulary)
    stretch = next(s for s in encoder.stretches if s.field is device)
    weight = {value: np.exp(-idf[stretch.start + 2 + i]) for i, value in enumerate(device.values)}
    often = max(weight, key=weight.__getitem__)
    seldom = min(weight, key=weight.__getitem__)
    assert drawn.count(often) > drawn.count(seldom) > 0
    assert made_up(encoder, idf, 3) == made_up(encoder, idf, 3)


@pytest.mark.parametrize("file", ["model.onnx", "statistics.npz"])
def test_they_prove_the_graph_and_the_statistics(file: str, anonymous: Path, tmp_path: Path) -> None:
    shutil.copytree(anonymous / "bundle", tmp_path / "b")
    Model.load(Bundle.open(tmp_path / "b"), precision="fp32")
    spoil(tmp_path / "b" / file)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["files"][file] = sha256(tmp_path / "b" / file)
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="golden sample"):
        Model.load(Bundle.open(tmp_path / "b"), precision="fp32")


def spoil(file: Path) -> None:
    """Turns the weights of a file around."""
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            np.savez(file, **{name: -arrays[name] if name == "weights" else arrays[name] for name in arrays.files})
        return
    graph = onnx.load(file)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(graph, file)
