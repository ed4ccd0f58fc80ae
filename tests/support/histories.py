"""Made-up histories of accounts that have habits of their own."""

from typing import Any

import numpy as np

SOME = [f"a{k}" for k in range(10)]


def of_habits(seed: int, length: int) -> dict[str, list[Any]]:
    """Events as columns, in time order: an account's own actions, prices and hours, of which some are missing."""
    rng = np.random.default_rng(seed)

    def drawn(values: list[Any], concentration: float) -> list[Any]:
        of_account = rng.choice(len(values), length, p=rng.dirichlet(np.full(len(values), concentration)))
        lacks = rng.random(length) < 0.1
        return [None if lacking else values[k] for k, lacking in zip(of_account, lacks, strict=True)]

    times = 1.7e9 + np.cumsum(rng.choice([0.5, 3.0, 60.0, 7200.0], length, p=rng.dirichlet(np.ones(4))))
    return {"ts": times.tolist(), "action": drawn(SOME, 0.3), "price": drawn([0.5, 3.0, 9.0, 50.0], 0.5)}


def part(columns: dict[str, list[Any]], some: slice) -> tuple[dict[str, list[Any]], int]:
    """Some of the events, and how many these are."""
    return {name: values[some] for name, values in columns.items()}, len(columns["ts"][some])
