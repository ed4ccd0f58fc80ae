"""What a vector of 384 numbers costs: bytes of a request, and the time that it adds to a sequence of 64 events.

The time is that of one core, from what a request's JSON was parsed into to the rows of the table, with the field and
without, by turns; least of many rounds, as other work on the machine only adds to it.

python tests/bench/vectors.py
"""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from pydantic_core import from_json

from service.encoding.encoder import Encoder
from service.encoding.vectors import as_text
from training.data.kinds import CATEGORICAL, IDENTIFIER, NUMERIC, VECTOR, Held
from training.data.log import Log
from training.fit.encoder import fit_encoder

WIDTH, WINDOW, ACCOUNTS, AT_ONCE, ROUNDS = 384, 64, 60, 8, 100


def log_of(rng: np.random.Generator) -> Log:
    """Accounts with actions, items and prices, each event with a vector of its own, as texts have."""
    events = ACCOUNTS * WINDOW
    frame = pl.DataFrame(
        {
            "sequence_id": np.repeat([f"s{k}" for k in range(ACCOUNTS)], WINDOW),
            "ts": 1.7e9 + np.cumsum(rng.exponential(60, events)),
            "action": rng.choice(["click", "view", "buy"], events),
            "item_id": rng.choice([f"i{k}" for k in range(200)], events),
            "price": rng.lognormal(2, 1, events).round(2),
            "vector": pl.Series(rng.normal(size=(events, WIDTH)).tolist(), dtype=pl.Array(pl.Float64, WIDTH)),
        }
    )
    kinds = {"action": CATEGORICAL, "item_id": IDENTIFIER, "price": NUMERIC, "vector": VECTOR}
    return Log.of(frame, held={name: Held(kind, "") for name, kind in kinds.items()})


def least(run: Callable[[], object], of: int = 1, rounds: int = ROUNDS) -> float:
    """Microseconds of process time, the least of all rounds, divided by `of`."""
    found = []
    for _ in range(rounds):
        start = time.process_time_ns()
        run()
        found.append((time.process_time_ns() - start) / 1000 / of)
    return min(found)


def _encode(encoder: Encoder, sent: list[Any]) -> None:
    for _ in encoder.encode_all(sent):
        pass


def in_turn(ways: dict[str, tuple[Encoder, bool]], given: list[Any], body: str) -> dict[str, float]:
    """Microseconds to encode a sequence in each of several ways, by turns, so that other work slows all alike.

    Args:
        ways: an encoder, and whether it is to forget the vectors that it read before.
        body: the sequences' vectors as JSON, parsed anew each time, as those of a request are.
    """
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (encoder, new) in ways.items():
            for book in encoder.reading.codebooks.values() if new else ():
                book.known.clear()
            sent = [({**c, "vector": v}, n) for (c, n), v in zip(given, from_json(body), strict=True)]
            found[name] = min(found[name], least(partial(_encode, encoder, sent), AT_ONCE, 1))
    return found


def main() -> None:
    """Measures and prints."""
    log = log_of(np.random.default_rng(0))
    encoder = fit_encoder(log, None, 128)
    other = [f for f in encoder.fields if "vector" not in (f.name, getattr(f, "column", ""))]
    without = Encoder([f for f in other if f.kind not in ("change", "habit")], log.reading)
    only = {f.name for f in without.fields} | {f.name for f in encoder.fields if f.kind == "codeword"}
    plain = Encoder([f for f in encoder.fields if f.name in only], encoder.reading)
    book = encoder.reading.codebooks["vector"]
    given = [log.sequence(i) for i in range(AT_ONCE)]
    vectors = [columns["vector"] for columns, _ in given]
    texts = [[as_text(np.asarray(v)) for v in some] for some in vectors]
    arrays = [[[round(float(n), 6) for n in np.asarray(v)] for v in some] for some in vectors]
    forms: dict[str, tuple[list[Any], bool]] = {
        "base64 of float16, read before": (texts, False),
        "base64 of float16, new": (texts, True),
        "array of numbers": (arrays, True),
    }
    print(f"a sequence of {WINDOW} events, each with {WIDTH} numbers; encoded {AT_ONCE} at a time")
    for name, (values, new) in forms.items():
        parsing = least(partial(from_json, json.dumps(values[0])))
        ways = {"bare": (without, False), "plain": (plain, new), "whole": (encoder, new)}
        took = in_turn(ways, given, json.dumps(values))
        bare, all_of_it, whole = (took[way] for way in ways)
        print(
            f"{name}: {len(json.dumps(values[0][0]))} bytes an event; {parsing:.0f} us to parse; to encode, {bare:.0f} "
            f"us without, {all_of_it - bare:.0f} us more with; {whole - all_of_it:.0f} us of change and habit beside it"
        )
    numbers = np.asarray(vectors, dtype=np.float32).reshape(-1, WIDTH)
    lengths = np.sqrt((numbers**2).sum(axis=1))
    print(f"of that, lengths and nearest codewords: {least(lambda: book.nearest(numbers, lengths), AT_ONCE):.0f} us")


if __name__ == "__main__":
    main()
