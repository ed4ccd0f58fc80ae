"""Made-up histories of accounts that have habits of their own."""

from typing import Any

import numpy as np
import polars as pl

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


def taken_over(accounts: int, latest: int, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and labels of accounts with strict habits; of every third, the latest events are those of another."""
    rng = np.random.default_rng(seed)
    habits = rng.dirichlet(np.full(30, 0.15), accounts)
    events, labels = [], []
    for account in range(accounts):
        length, anomalous = int(rng.integers(latest + 100, latest + 200)), account % 3 == 0
        doing = np.full(length, account)
        if anomalous:
            doing[-latest:] = (account + 1 + rng.integers(accounts - 1)) % accounts
        times = 1.7e9 + rng.uniform(0, 86_400) + np.cumsum(rng.exponential(600, length))
        actions = [f"a{rng.choice(30, p=habits[who])}" for who in doing]
        events.append(
            pl.DataFrame({"ts": times, "action": actions}).select(pl.lit(f"u{account}").alias("sequence_id"), "*")
        )
        labels.append(
            {"sequence_id": f"u{account}", "label": int(anomalous), "type": "takeover" if anomalous else None}
        )
    return pl.concat(events), pl.DataFrame(labels)
