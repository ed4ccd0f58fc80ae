from pathlib import Path

import numpy as np
import torch

from service.encoding.chunks import pad
from service.engine.session import Engine
from tests.support.chunks import POSITIONS, ROWS, SLOTS, chunks
from training.config import PRESETS
from training.network.export import export_half, export_onnx
from training.network.finetune import run_torch
from training.network.model import BehaviourBert


def test_in_half_it_answers_nearly_the_same_and_takes_half_the_space(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BehaviourBert(ROWS, 3, PRESETS["base"], POSITIONS)
    full, half = tmp_path / "model.onnx", tmp_path / "half.onnx"
    export_onnx(model, SLOTS, full)
    export_half(full, half)
    ids = pad(chunks(2, 17, 40, POSITIONS))
    theirs = vars(run_torch(model)(ids))
    for name, ours in vars(Engine(half).run(ids)).items():
        assert np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-theirs[name]))).max() < 1e-2
    assert half.stat().st_size < 0.6 * full.stat().st_size
