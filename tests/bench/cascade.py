"""What the cascade saves and what it loses: the same traffic with it and without, in turns.

    python tests/bench/cascade.py --bundle build/demo/bundle --log build/demo

The folder holds the bundle's own log, events.csv and labels.csv. Genuine accounts are those that the fit held back;
attackers are injected anew among the log's genuine accounts. Decisions are compared on whole histories and on their
latest events, each judged alone. Of the traffic that is timed, one account in a hundred attacks. The load has one core,
the services the other.
"""

import argparse
import asyncio
import json
import os
import random
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from service.model.bundle import Bundle
from service.tools.bench import service
from service.tools.load import Load
from tests.support.load import batches
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject

Account = tuple[str, dict[str, list[Any]]]  # what it is, and its events by column
LATEST = (6, 14, 33, 64)
ATTACKS_IN = 100
CONNECTIONS = {1: 16, 64: 2}  # by the number of sequences in a request
PATIENT = {"queue_tokens": 10**6, "max_wait_ms": 60_000, "timeout_ms": 60_000}  # so that nothing is refused
ROUNDS = 3


def accounts(bundle: Bundle, folder: Path, size: float, seed: int) -> list[Account]:
    """Genuine accounts that the fit held back, and new attackers of the types that it knows."""
    table = pl.read_csv(folder / "labels.csv", infer_schema=False)
    log, _ = clean_events(folder / "events.csv")
    plain = set(table.filter(pl.col("label") == "0")["sequence_id"])
    log = log.subset(np.array([i for i, name in enumerate(log.ids) if name in plain]))
    told, known, sources = inject(log, None, InjectConfig(size=size, seed=seed), bundle.types)
    quality = json.loads((bundle.path / "evaluation.json").read_text())
    held_back = {name for name, label in zip(quality["sequences"], quality["label"], strict=True) if label == 0}
    came_from = dict(sources.select("sequence_id", "source").rows())
    kinds = {name: kind for name, label, kind in known.select("sequence_id", "label", "type").rows() if label == 1}
    found = []
    for (name,), rows in told.group_by("sequence_id", maintain_order=True):
        kind = kinds.get(str(name), "genuine" if came_from[name] in held_back else None)
        if kind:
            columns = rows.sort("ts").select(sorted(bundle.encoder.columns & set(rows.columns)))
            found.append((kind, columns.to_dict(as_series=False)))
    return found


def latest(events: dict[str, list[Any]], count: int | None) -> dict[str, list[Any]]:
    return {name: values[-count:] if count else values for name, values in events.items()}


def looks(some: Sequence[Account]) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Each account whole, and its latest events where it has more."""
    for kind, events in some:
        length = len(next(iter(events.values())))
        yield from ((kind, latest(events, count)) for count in (*LATEST, None) if count is None or count < length)


def decided(base: str, some: Sequence[tuple[str, dict[str, list[Any]]]]) -> list[tuple[str, bool]]:
    """Decision on each, and whether the network was left out."""
    found = []
    for k in range(0, len(some), 256):
        body = {"sequences": [{"id": str(k + i), "events": e} for i, (_, e) in enumerate(some[k : k + 256])]}
        headers = {"Content-Type": "application/json", "X-Request-Timeout-Ms": "60000"}
        request = urllib.request.Request(f"{base}/v1/score", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=90) as reply:
            results = json.loads(reply.read())["results"]
        found += [(r["decision"], not r.get("network", True)) for r in results]
    return found


def agreement(plain: str, early: str, some: Sequence[Account]) -> None:
    """Prints by type how many looks are decided otherwise with the cascade."""
    asked = list(looks(some))
    total: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    gained: Counter[str] = Counter()
    spared: Counter[str] = Counter()
    for (kind, _), (before, _), (after, skipped) in zip(
        asked, decided(plain, asked), decided(early, asked), strict=True
    ):
        total[kind] += 1
        flagged[kind] += before != "allow"
        lost[kind] += before != "allow" and after != before
        gained[kind] += before == "allow" and after != before
        spared[kind] += skipped
    print(f"{'':15} {'looks':>6} {'flagged':>8} {'lost':>5} {'gained':>7} {'skipped':>8}")
    for kind in sorted(total):
        share = spared[kind] / total[kind]
        print(f"{kind:15} {total[kind]:6} {flagged[kind]:8} {lost[kind]:5} {gained[kind]:7} {share:8.3f}")


def traffic(some: Sequence[Account]) -> list[dict[str, Any]]:
    """Windows of the latest 64 events, each account once, as copies would give each other away beside the crowd."""
    genuine = [events for kind, events in some if kind == "genuine"]
    attacks = [events for kind, events in some if kind != "genuine"][: round(len(genuine) / (ATTACKS_IN - 1))]
    mixed = [*genuine, *attacks]
    random.Random(0).shuffle(mixed)
    return [{"id": f"u{i}", "events": latest(events, 64)} for i, events in enumerate(mixed)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "log"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--size", type=float, default=0.2, help="attackers of each type, as a share of the genuine")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    of_service, of_load = sorted(os.sched_getaffinity(0))[:2]
    some = accounts(Bundle.open(given.bundle), given.log, given.size, given.seed)
    sequences = traffic(some)
    os.sched_setaffinity(0, {of_load})
    for crowd in (False, True):
        settings: dict[str, object] = {"threads": 1, "crowd": crowd, "log_requests": 0, **PATIENT}
        with (
            service(given.bundle, [of_service], **settings) as (plain, _),
            service(given.bundle, [of_service], **settings, cascade=True) as (early, _),
        ):
            if not crowd:
                agreement(plain, early, some)
            before = ways(early)
            for size, connections in CONNECTIONS.items():
                rates: dict[str, list[float]] = {plain: [], early: []}
                for _ in range(ROUNDS):
                    for base in (plain, early):
                        url = f"{base}/v1/score"
                        outcome = asyncio.run(
                            Load(url, batches(sequences, size, url)).closed(connections, given.seconds)
                        )
                        assert set(outcome.codes) == {"200"}, outcome.codes
                        rates[base].append(outcome.sequences / outcome.elapsed)
                off, on = (", ".join(f"{r:.0f}" for r in rates[base]) for base in (plain, early))
                gain = float(np.mean(rates[early]) / np.mean(rates[plain]))
                beside = "beside the crowd" if crowd else "alone"
                print(f"{beside}, {size} a request: off {off}/s, on {on}/s, {gain:.2f} times", flush=True)
            ran, skipped = ways(early) - before
            print(f"skipped in the traffic that was timed: {skipped / (ran + skipped):.3f}", flush=True)


def ways(base: str) -> np.ndarray:
    """How many sequences were judged with the network so far, and without it."""
    text = urllib.request.urlopen(f"{base}/metrics", timeout=10).read().decode()
    found = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("recguard_cascade_sequences_total")
    )
    return np.array([float(found[f'recguard_cascade_sequences_total{{network="{w}"}}']) for w in ("run", "skipped")])


if __name__ == "__main__":
    main()
