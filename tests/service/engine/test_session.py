import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.chunks import pad
from service.encoding.encoder import EVENT
from service.engine.session import (
    NAMES,
    TENSORRT_ROWS,
    Engine,
    ProviderError,
    Requested,
    Runtime,
    bucket,
    cores,
    providers,
)
from service.model.bundle import Bundle
from service.model.scorer import Model


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_no_more_cores_are_used_than_the_container_may(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores(tmp_path) == expected


@given(st.integers(1, 1 << 20))
def test_a_bucket_holds_what_is_asked_and_at_most_a_third_of_it_is_empty(count: int) -> None:
    found = bucket(count)
    assert count <= found <= 3 * (count // 2) + 1
    assert bucket(found) == found


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> tuple[Engine, Engine]:
    """The same graph as it comes, and at few shapes with buffers of its own."""
    path, chunk = bundle.path / "model.onnx", bundle.encoder.max_positions
    return Engine(path, Runtime(threads=1), chunk), Engine(path, Runtime(threads=1, bucketed=True), chunk)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 100))
def test_at_few_shapes_and_in_parts_the_answers_are_the_same(
    engines: tuple[Engine, Engine], lengths: list[int], seed: int
) -> None:
    plain, bucketed = engines
    rng = np.random.default_rng(seed)
    ids = pad([rng.integers(1, 40, (n, plain.slots), dtype=np.int32) for n in lengths])
    ids[:, 0, 0] = EVENT  # as each chunk has one, over which its logits are weighed
    assert bucketed.bound is not None
    bucketed.bound.rows = int(rng.integers(1, 12))
    for _ in range(2):  # the second time in buffers that hold the first
        found = bucketed.run(ids)
        for name, values in vars(plain.run(ids)).items():
            np.testing.assert_allclose(getattr(found, name), values, rtol=1e-3, atol=1e-4)
    of = {(b.ids.shape[0], b.ids.shape[1]) for b in bucketed.bound.buffers.values()}
    assert all(bucket(batch) == batch or batch <= 12 for batch, _ in of)
    assert {positions for _, positions in of} <= {8, 12, 16, 24, 32, 48}


def test_half_precision_changes_scores_little_and_serves_a_gpu(bundle: Bundle) -> None:
    variants = bundle.manifest["variants"]
    assert variants["fp16_change"] <= 0.01
    assert variants["cuda"] == "fp16"
    assert Model.load(bundle, precision="fp16").engine.precision == "fp16"  # its golden samples score as they must


def test_a_gpu_is_given_bounds_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(NAMES.values()))
    asked = Runtime("tensorrt", gpu_memory_mb=2048, cuda_graphs=True, tensorrt_cache=Path("/kept"))
    (first, tensorrt), (second, cuda), (last, _) = providers(asked, 200, lambda: 15)
    assert [first, second, last] == [NAMES["tensorrt"], NAMES["cuda"], NAMES["cpu"]]
    assert tensorrt["trt_profile_min_shapes"] == "ids:1x1x15"
    assert tensorrt["trt_profile_max_shapes"] == f"ids:{TENSORRT_ROWS}x200x15"
    assert tensorrt["trt_engine_cache_path"] == "/kept"
    assert cuda == {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": str(2 << 30)}
    [(_, cuda), _] = providers(Runtime("cuda", cuda_graphs=True), 200, lambda: 15)
    assert cuda["enable_cuda_graph"] == "1"
    monkeypatch.setattr(ort, "get_available_providers", lambda: [NAMES["cpu"]])
    absent: Requested
    for absent in ("cuda", "tensorrt"):
        with pytest.raises(ProviderError, match=f"RECGUARD_PROVIDER={absent}"):
            providers(Runtime(absent), 200, lambda: 15)
    assert providers(Runtime("auto"), 200, lambda: 15) == [(NAMES["cpu"], {})]
