"""What reasons cost a core: the time for one sequence of 64 events, median and spread over a bundle's golden events.

python tests/bench/reasons.py --bundle bundle --reasons 5
"""

import argparse
import random
import statistics
import time
from pathlib import Path

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.encoding.values import EventError
from service.model.bundle import Bundle
from service.model.scorer import Model
from service.tools.bench import sequences_of

WINDOW, SEQUENCES, ROUNDS = 64, 40, 15


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--reasons", type=int, default=5)
    given = parser.parse_args()
    model = Model.load(Bundle.open(given.bundle))
    sent = [columns_of(s["events"]) for s in sequences_of(model.bundle, [WINDOW] * SEQUENCES, random.Random(0))]
    judged = []
    for one in model.read(sent):
        assert not isinstance(one, EventError)
        outputs = model.engine.run(pad(one.chunks))
        judged += model.judge([one], [(outputs, k) for k in range(len(one.chunks))])
    each = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for one, columns in zip(judged, sent, strict=True):
            model.reasons(one, columns, given.reasons)
        each.append(1000 * (time.process_time() - start) / SEQUENCES)
    print(f"{statistics.median(each):.3f} ms a sequence, {min(each):.3f} to {max(each):.3f} in {ROUNDS} rounds")


if __name__ == "__main__":
    main()
