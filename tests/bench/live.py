"""Windows scored as their events happen, against the same windows sent whole, on the same cores.

    python tests/bench/live.py --bundle build/demo/bundle

Redis and the load share one core, the service has another; each event is new, and has its whole window scored.
"""

import argparse
import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from service.model.bundle import Bundle
from service.tools.bench import sequences_of, service
from service.tools.load import Load, Outcome, Prepared
from tests.support.load import EVENTS_TEMPLATE, batches, happened, redis

WINDOW, KEYS = 64, 256
CONNECTIONS = 16


def measure(url: str, requests: Sequence[Prepared], seconds: float) -> Outcome:
    return asyncio.run(Load(url, requests).closed(CONNECTIONS, seconds))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    of_service, of_load = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {of_load})
    sequences = sequences_of(Bundle.open(given.bundle), [WINDOW] * KEYS, random.Random(0))
    rows = []
    with redis(of_load) as redis_url:
        for name, settings in (("whole", {}), ("memory", {}), ("redis", {"live_url": redis_url, "crowd_key": "k"})):
            with service(given.bundle, [of_service], live_window=WINDOW, **settings) as (base, _):
                score, events = f"{base}/v1/score", f"{base}/v1/events"
                if name != "whole":
                    for at in range(WINDOW):
                        fill = batches(happened(sequences, at), KEYS, events, EVENTS_TEMPLATE)
                        outcome = asyncio.run(Load(events, fill).closed(1, 0.05))
                        assert set(outcome.codes) == {"200"}, outcome.codes
                at = WINDOW
                for size in (1, 16):
                    if name == "whole":
                        outcome = measure(score, batches(sequences, size, score), given.seconds)
                    else:
                        later = [e for k in range(120) for e in happened(sequences, at + k)]
                        at += 120
                        outcome = measure(events, batches(later, size, events, EVENTS_TEMPLATE), given.seconds)
                    found = {"windows": name, "in a request": size, **outcome.to_json()}
                    rows.append(found)
                    shown = f"{found['sequences_per_second']:7.1f}/s  p50 {found['p50_ms']:6.1f} ms  {found['codes']}"
                    print(f"{name:7} {size:3} in a request  {shown}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
