"""The engine's process: the same answers and errors as an engine here, and another process where one is lost."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.encoding.chunks import pad
from service.engine.remote import EngineLost, HostedEngine
from service.engine.server import hosted
from service.engine.session import Engine, ProviderError, Runtime
from service.model.bundle import Bundle, BundleError
from tests.support.processes import spawned, wait_until


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("a-directory-whose-name-is-longer-than-the-path-of-a-unix-socket-may-ever-be" * 2)
    with hosted(folder / "engine", "json"):
        yield folder / "engine"


def chunks(engine: Engine | HostedEngine, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pad([rng.integers(1, 40, (n, engine.slots), dtype=np.int32) for n in (3, 17, 9)])


def test_it_answers_as_an_engine_here_to_many_at_once(address: Path, bundle: Bundle) -> None:
    here, there = bundle.engine(Runtime(threads=1)), bundle.engine(Runtime(threads=1, host=address))
    assert isinstance(there, HostedEngine)
    told = ("provider", "precision", "slots", "types", "threads", "batch_tokens")
    assert [getattr(here, name) for name in told] == [getattr(there, name) for name in told]
    wrong: list[str] = []

    def compare(seed: int) -> None:
        engine = bundle.engine(Runtime(threads=1, host=address))
        for k in range(5):
            ids = chunks(engine, seed * 5 + k)
            found = engine.run(ids)
            wrong.extend(n for n, v in vars(here.run(ids)).items() if not np.allclose(getattr(found, n), v, atol=1e-5))

    threads = [threading.Thread(target=compare, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_errors_are_those_of_an_engine_here(address: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="RECGUARD_PROVIDER=tensorrt"):
        bundle.engine(Runtime("tensorrt", host=address))
    shutil.copytree(bundle.path, tmp_path / "bundle")
    broken = Bundle(tmp_path / "bundle", bundle.manifest)
    for name in ("model.onnx", "model.int8.onnx"):
        (broken.path / name).write_bytes(b"broken")
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it"):
        broken.engine(Runtime(host=address))
    for name in ("model.onnx", "model.int8.onnx"):
        (broken.path / name).unlink()
    with pytest.raises(BundleError, match="No such file"):
        broken.engine(Runtime(host=address))
    engine = bundle.engine(Runtime(host=address), precision="fp32")
    with pytest.raises(FloatingPointError):
        engine.run(np.zeros((1, 4, engine.slots), np.int32))  # padding only
    assert np.isfinite(engine.run(chunks(engine)).sequence_logit).all()


def test_a_graph_that_was_replaced_in_its_place_is_loaded_anew(address: Path, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(bundle.path / "model.onnx", path)
    before = HostedEngine(path, Runtime(threads=1, host=address), bundle.encoder.max_positions)
    old = before.run(chunks(before))
    path.unlink()
    shutil.copy(bundle.path / "model.int8.onnx", path)
    after = HostedEngine(path, Runtime(threads=1, host=address), bundle.encoder.max_positions)
    assert not np.array_equal(after.run(chunks(after)).sequence_logit, old.sequence_logit)
    assert np.array_equal(before.run(chunks(before)).sequence_logit, old.sequence_logit)


def test_a_process_that_is_killed_is_replaced(address: Path, bundle: Bundle) -> None:
    engine = bundle.engine(Runtime(threads=1, host=address))
    expected = engine.run(chunks(engine))
    [old] = spawned("self")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: spawned("self") not in ([], [old]))
    with pytest.raises(EngineLost):
        engine.run(chunks(engine))
    assert np.array_equal(engine.run(chunks(engine)).sequence_logit, expected.sequence_logit)
