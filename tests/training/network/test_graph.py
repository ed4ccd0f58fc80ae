from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from service.encoding.chunks import pad
from service.engine.session import Engine
from tests.support.chunks import POSITIONS, ROWS, SLOTS, chunks
from training.config import PRESETS, Preset
from training.network.finetune import run_torch
from training.network.graph import graph_of
from training.network.model import BehaviourBert


def engine_of(model: BehaviourBert, folder: Path) -> Engine:
    written = graph_of(model, SLOTS)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, folder / "model.onnx")
    return Engine(folder / "model.onnx")


@pytest.mark.parametrize(
    ("preset", "types"), [(PRESETS["tiny"], 3), (PRESETS["base"], 1), (Preset(1, 24, 3, False), 12)]
)
def test_the_graph_answers_as_torch_does_whatever_a_chunk_is_padded_with(
    preset: Preset, types: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = BehaviourBert(ROWS, types, preset, POSITIONS)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))  # biases and norms begin as zero and one, which tell nothing
    model.center_states(torch.from_numpy(pad(chunks(40, 50))))
    engine, given = engine_of(model, tmp_path), chunks(2, 17, 40, POSITIONS)
    together, torch_together = vars(engine.run(pad(given))), vars(run_torch(model)(pad(given)))
    for number, chunk in enumerate(given):
        alone = vars(engine.run(chunk[None]))
        for name, expected in torch_together.items():
            some = slice(len(chunk)) if name in ("event_logits", "foreign_logits") else ...
            for ours in (together[name][number], alone[name][0]):
                assert np.abs(ours[some] - expected[number][some]).max() < 1e-4, name
