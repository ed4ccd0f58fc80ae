"""Shows what one look for campaigns costs in a full crowd: the turns on the event loop, and the thread.

    python tests/bench/campaigns.py [--accounts 20000] [--values 150000] [--events 60]

A campaign of 30 accounts is among them. What keeping the latest answer costs a request is shown as well.
"""

import argparse
import time

import numpy as np

from service.model.campaigns import find
from service.model.crowd import Crowd
from service.model.looks import Limits
from service.model.shot import Shot
from service.schemas.messages import Sequence
from service.serving.recent import Recent
from tests.support.crowds import DAY, NOW, RARE, USUAL, held, naming, recent

TURN = 0.002
ANSWER = {"score_id": "0" * 32, "score": 0.1, "decision": "allow", "type": None, "support": {"events": 64}}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("accounts", 20_000), ("values", 150_000), ("events", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    crowd = Crowd(Limits(accounts=given.accounts + 30), watches=True)
    rng, edges = np.random.default_rng(0), np.cumsum(1 / np.arange(1, given.values + 1))
    for account in range(given.accounts):
        numbers = np.searchsorted(edges, rng.uniform(0, edges[-1], given.events)).tolist()
        crowd.enter(account, held(numbers, NOW - rng.uniform(0, 30 * DAY) - rng.uniform(0, DAY, given.events)))
    for k, one in enumerate(recent(30, seed=3)):
        crowd.enter(given.accounts + k, naming(one, RARE, NOW - 60.0 * k))
    start = time.perf_counter()
    shot, more = Shot(crowd), True
    turns = [time.perf_counter() - start]
    while more:
        start = time.perf_counter()
        more = shot.more(TURN)
        turns.append(time.perf_counter() - start)
    start = time.perf_counter()
    groups = find(shot, USUAL)
    seconds = time.perf_counter() - start
    print(f"{given.accounts} accounts, {len(crowd.holders)} values, {len(shot.copies)} copies")
    first, most = 1000 * turns[0], 1000 * np.quantile(turns, 0.99)
    print(
        f"shot: {len(turns)} turns, {sum(turns):.2f} s in all; {first:.1f} ms the first, 99 in 100 under {most:.1f} ms"
    )
    print(f"find: {seconds:.2f} s, {len(groups)} campaigns, {[len(group.members) for group in groups]} members")
    event = {"ts": 1.7e9, "action": "click", "item_id": "i12345", "category": "c1", "price": 12.5}
    recent_answers, sequence = Recent(32 << 20), Sequence(id="u", events=[event] * 64)
    times = []
    for account in range(20_000):
        start = time.perf_counter()
        recent_answers.keep(account, sequence, b"", ANSWER, "1", live=False)
        times.append(time.perf_counter() - start)
    print(f"an answer of 64 events: {1e6 * np.median(times):.1f} us; {len(recent_answers.answers)} fit into 32 MB")


if __name__ == "__main__":
    main()
