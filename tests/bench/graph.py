"""What a graph costs on one core, and which of its operators.

    python tests/bench/graph.py NAME=PATH.onnx [NAME=PATH.onnx ...] [--rounds 20]

Graphs take turns, so that a busy machine slows all alike. Microseconds of processor time a chunk, median and least.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.encoding.encoder import CLS, EVENT
from service.encoding.fields import FIRST
from service.engine.session import SLOW_ON_CPU, Engine, Runtime

SHAPES = ((1, 64), (8, 64), (1, 128), (1, 16))  # chunks of a batch, and events


def batch(rng: np.random.Generator, chunks: int, events: int, slots: int) -> NDArray[np.int32]:
    """Rows that any table has, at random."""
    ids = rng.integers(FIRST, 100, (chunks, events, slots)).astype(np.int32)
    ids[:, :, 0] = EVENT
    ids[:, 0, 0] = CLS
    return ids


def operators(path: Path, ids: NDArray[np.int32], runs: int = 200) -> dict[str, float]:
    """Microseconds a run of each operator, by ONNX Runtime's profiler, which costs time itself."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = 1, True
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_ON_CPU
        )
        for _ in range(runs):
            session.run(None, {"ids": ids})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    return {name: total / runs for name, total in spent.most_common(10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="+", help="NAME=PATH.onnx")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    paths = {name: Path(path) for name, _, path in (graph.partition("=") for graph in given.graphs)}
    engines = {name: Engine(path, Runtime(threads=1)) for name, path in paths.items()}
    rng = np.random.default_rng(0)
    print("graph, chunks x events, median, least")
    for chunks, events in SHAPES:
        spent: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(given.rounds):
            for name, engine in engines.items():
                ids = batch(rng, chunks, events, engine.slots)
                start, runs = time.thread_time(), max(32 // chunks, 1)
                for _ in range(runs):
                    engine.run(ids)
                spent[name].append((time.thread_time() - start) / runs / chunks * 1e6)
        for name, times in spent.items():
            print(f"{name}, {chunks} x {events}, {np.median(times):.0f}, {min(times):.0f}")
    for name, path in paths.items():
        of = operators(path, batch(rng, 1, 64, engines[name].slots))
        print(name, "1 x 64:", ", ".join(f"{operator} {took:.0f}" for operator, took in of.items()))


if __name__ == "__main__":
    main()
