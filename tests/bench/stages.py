"""What the stages of a sequence cost on one core: encode, the parts without a network, and the crowd.

    python tests/bench/stages.py --bundle build/demo/bundle --log build/demo [--against OTHER_CHECKOUT]

The sequences are the latest 64 events of accounts of the log, one at a time and 32 at once. The crowd is what all other
accounts of the log did. With `--against`, another checkout measures the same in turns with this one. The least of all
rounds counts, since other work on the machine only makes them longer.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.encoding.encoder import Encoded
from service.model.bundle import Bundle
from service.model.pooling import NetworkLogits
from service.model.scorer import Judged, Model, Score, gather
from service.model.togetherness import Together
from service.serving.crowd import LiveCrowd, limits_of
from service.settings import Settings
from tests.support.paths import ROOT
from training.data.clean import clean_events

EVENTS, AMONG, ACCOUNTS, PASSES, ROUNDS = 64, 32, 128, 5, 3


def microseconds(work: Callable[[Any], object], given: Sequence[Any], of: int) -> float:
    """The least time of PASSES through all that is given, for each of `of` sequences."""
    found = []
    for _ in range(PASSES):
        start = time.process_time()
        for one in given:
            work(one)
        found.append((time.process_time() - start) / of)
    return 1e6 * min(found)


def measured(bundle: Bundle, folder: Path) -> dict[str, float]:
    """Microseconds a sequence, by stage."""
    log, _ = clean_events(folder / "events.csv")
    whole = list(log.sequences())
    long = [i for i, (_, length) in enumerate(whole) if length >= EVENTS][:ACCOUNTS]
    latest = [({name: values[-EVENTS:] for name, values in whole[i][0].items()}, EVENTS) for i in long]
    found: dict[str, float] = {}
    encoder, tabular, usual = bundle.encoder, bundle.tabular, bundle.usual
    assert usual is not None
    encoded = [e for e in encoder.encode_all(latest) if isinstance(e, Encoded)]
    for size in (1, AMONG):
        given = [latest[k : k + size] for k in range(0, len(latest), size)]
        found[f"encode, {size}"] = microseconds(lambda some: list(encoder.encode_all(some)), given, len(latest))
        some = [encoded[k : k + size] for k in range(0, len(latest), size)]
        found[f"tabular, {size}"] = microseconds(tabular.read, some, len(latest))
    crowd = LiveCrowd(limits_of(Settings(bundle=bundle.path)))
    for name, e in zip(log.ids, encoder.encode_all(whole), strict=True):
        if isinstance(e, Encoded):
            crowd.enter([name], [e.held])
    pairs = [([log.ids[i]], [e.held]) for i, e in zip(long, encoded, strict=True)]
    found["look and read"] = microseconds(lambda pair: crowd.look(usual, *pair), pairs, len(pairs))
    found["enter again"] = microseconds(lambda pair: crowd.enter(*pair), pairs, len(pairs))
    for number in range(PASSES):
        new = [([f"{number} {a}"], held) for [a], held in pairs]
        start = time.process_time()
        for pair in new:
            crowd.enter(*pair)
        spent = 1e6 * (time.process_time() - start) / len(pairs)
        found["enter, new"] = min(found.get("enter, new", spent), spent)
    return found | {"judge beside": _judged(Model(bundle, None), encoded, crowd, usual)}  # type: ignore[arg-type]


def _judged(model: Model, encoded: Sequence[Encoded], crowd: LiveCrowd, usual: Any) -> float:
    types, pairs = max(len(model.bundle.types), 1), []
    for e in encoded:
        events = np.zeros(e.length, np.float32)
        logits = NetworkLogits(np.zeros(1), np.zeros((1, types)), events, events)
        evidence = gather([e], logits, model.bundle.tabular.read([e]), Together.unknown([e.length]))
        [score] = model.scorer.scores(evidence)
        assert isinstance(score, Score)
        pairs.append(([Judged(score, e, evidence, 0)], crowd.look(usual, ["nobody"], [e.held])))
    return microseconds(lambda pair: model.beside(*pair), pairs, len(pairs))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--one", action="store_true", help="measures this checkout once, as JSON")
    given = parser.parse_args()
    if given.one:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(json.dumps(measured(Bundle.open(given.bundle), given.log)))
        return
    checkouts = [ROOT, *([given.against.resolve()] if given.against else [])]
    least: dict[Path, dict[str, float]] = {path: {} for path in checkouts}
    command = [sys.executable, __file__, "--bundle", given.bundle.resolve(), "--log", given.log.resolve(), "--one"]
    for _ in range(ROUNDS):
        for path in checkouts:
            env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
            told = subprocess.run(list(map(str, command)), cwd=path, env=env, capture_output=True, check=True)
            for name, spent in json.loads(told.stdout).items():
                least[path][name] = min(least[path].get(name, spent), spent)
    for name in least[ROOT]:
        print(f"{name}: " + " against ".join(f"{of[name]:.0f}" for of in least.values()) + " us")


if __name__ == "__main__":
    main()
