from pathlib import Path

import numpy as np
import pytest
import torch

from service.encoding.chunks import pad
from tests.support.paths import ROOT
from training.config import PRESETS
from training.network.export import export_half, export_onnx
from training.network.finetune import run_torch
from training.network.model import BehaviourBert


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_the_graph_answers_as_torch_does(preset: str, tmp_path: Path) -> None:
    from service.engine.session import Engine

    torch.manual_seed(0)
    model = BehaviourBert(300, 3, PRESETS[preset], 64)
    export_onnx(model, 5, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    windows = [rng.integers(5, 300, (n, 5)).astype(np.int32) for n in (2, 17, 40, 64)]
    for w in windows:
        w[:, 0] = 2
        w[0, 0] = 1
    ids = pad(windows)
    export_half(tmp_path / "model.onnx", tmp_path / "half.onnx")
    theirs = vars(run_torch(model)(ids))
    for name, most in (("model", 1e-4), ("half", 1e-2)):
        for ours, expected in zip(
            vars(Engine(tmp_path / f"{name}.onnx").run(ids)).values(), theirs.values(), strict=True
        ):
            assert np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-expected))).max() < most
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "model.onnx").stat().st_size
    assert str(ROOT).encode() not in (tmp_path / "model.onnx").read_bytes()
