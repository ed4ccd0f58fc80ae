"""Behaviour logs: made up, real, and as the API takes them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.support.paths import SHARED


def shared(name: str) -> Path:
    """A folder of real data; the test is skipped where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not beside the project")
    return folder


def genuine_log(users: int, seed: int = 0) -> pl.DataFrame:
    """Users who each like a few categories, browse, and buy a little of what they saw."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        now = 1.7e9 + rng.uniform(0, 60 * 86400)
        taste = rng.dirichlet(np.full(6, 0.4))
        for _ in range(int(rng.integers(8, 60))):
            category = int(rng.choice(6, p=taste))
            item = category * 20 + int(20 * rng.beta(1, 3))
            now += rng.lognormal(3.5, 1.5)
            bought = rng.random() < 0.1
            rows.append(
                {
                    "sequence_id": f"u{user}",
                    "ts": round(now, 1),
                    "action": "purchase" if bought else "click",
                    "item_id": f"i{item}",
                    "category": f"c{category}",
                    "rating": float(np.clip(round(rng.normal(3.6, 1)), 1, 5)),
                    "price": round(float(rng.lognormal(2 + category / 4, 0.5)), 2),
                }
            )
    return pl.DataFrame(rows)


def click(number: int, **fields: Any) -> dict[str, Any]:
    """The event of that number of a user who clicks on something else every ten seconds; `fields` come on top."""
    return {"ts": 1.7e9 + 10 * number, "action": "click", "item_id": f"i{number}", "category": "c1"} | fields


def sequences(log: Path, count: int) -> list[dict[str, Any]]:
    """The first sequences of a log as the API takes them."""
    events = pl.read_csv(log).drop("event_label")
    picked = events["sequence_id"].unique(maintain_order=True)[:count]
    return [
        {"id": str(i), "events": events.filter(pl.col("sequence_id") == i).drop("sequence_id").to_dicts()}
        for i in picked
    ]
