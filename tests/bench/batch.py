"""Batch scoring over Ray against the graph alone in ONNX Runtime, on the same cores.

    python tests/bench/batch.py --bundle build/demo/bundle --events FOLDER

The graph alone runs over the log's windows, encoded beforehand and sorted by length, in one process a core. Ray reads
the log from Parquet, cleans, encodes, scores and writes it; its time is given with and without the start of workers.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from service.encoding.encoder import Encoded
from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.model.scorer import network_logits
from training.data.clean import clean_table
from training.distributed.scoring import score_on_ray


def alone(bundle: Path, sequences: list[Encoded], core: int) -> None:
    """Runs the graph over sequences on one core."""
    os.sched_setaffinity(0, {core})
    network_logits(sequences, Bundle.open(bundle).engine(Runtime(threads=1)).run)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    files = sorted(given.events.rglob("*.parquet"))
    log, _ = clean_table(pl.concat(pl.read_parquet(file) for file in files), given.events)
    sequences = [e for e in bundle.encoder.encode_all(log.sequences()) if isinstance(e, Encoded)]
    cores = sorted(os.sched_getaffinity(0))
    parts = [sequences[k :: len(cores)] for k in range(len(cores))]
    start = time.perf_counter()
    workers = [
        multiprocessing.Process(target=alone, args=(given.bundle, part, core))
        for part, core in zip(parts, cores, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    raw = len(sequences) / (time.perf_counter() - start)
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        firsts: list[float] = []

        def follow(steps: Iterable[Any], title: str, _: int) -> Iterator[Any]:
            for step in steps:
                if title == "scoring" and not firsts:
                    firsts.append(time.perf_counter())
                yield step

        count = score_on_ray("local", bundle, given.events, Path(folder) / "out", {}, follow)
        ended = time.perf_counter()
        done = [pl.read_parquet(file).height for file in sorted((Path(folder) / "out").glob("part-*.parquet"))]
    whole = count / (ended - began)
    steady = (count - done[0]) / (ended - firsts[0])
    print(f"graph alone {raw:.0f} sequences/s; over Ray {whole:.0f} ({whole / raw:.2f}) with all starts,")
    print(f"{steady:.0f} ({steady / raw:.2f}) from its first part on")


if __name__ == "__main__":
    main()
