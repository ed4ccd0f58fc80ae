"""A log whose values are told from any other text, and what an anonymous bundle is fitted on it with."""

import csv
from pathlib import Path

import numpy as np
import polars as pl

from tests.support.logs import genuine_log
from training.config import FitConfig

ACCOUNTS, LEAST = 320, 5
ANONYMOUS = FitConfig(
    preset="tiny",
    layers=1,
    epochs=1,
    folds=1,
    min_holders=LEAST,
    kinds="device=categorical,town=categorical,shelf=categorical",
)


def named_log(folder: Path, seed: int) -> pl.DataFrame:
    """A labelled log whose values are told from any other text, many of them of one account or a few."""
    rng = np.random.default_rng(seed)
    events = genuine_log(ACCOUNTS, seed).drop("rating").rename({"category": "shelf"})
    who = events["sequence_id"].rle_id().to_numpy()
    anomalous = np.arange(ACCOUNTS) % 5 == 0

    def rarely(name: str, commons: int, share: float) -> list[str]:
        """Mostly common values, and some that one account or up to seven have."""
        rare = [f"{name}-{w // int(rng.integers(1, 8))}-rare" for w in who]
        return [rare[i] if rng.random() < share else f"{name}-common-{rng.integers(commons)}" for i in range(len(who))]

    events = events.with_columns(
        sequence_id=pl.Series([f"account-{seed}-{w}" for w in who]),
        item_id=pl.Series(rarely("item", 40, 0.2)),
        device=pl.Series(rarely("device", 4, 0.03)),
        town=pl.Series([f"town-{w // 3}-small" if w % 4 == 0 else f"town-common-{w % 3}" for w in who]),
        text=pl.Series([f"for {name}" for name in rarely("person", 30, 0.2)]),
        price=events["price"] + 200.0 * anomalous[who],
    )
    events.write_csv(folder / "events.csv")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sequence_id", "label", "type", "branch"])
        for w in range(ACCOUNTS):
            kind = ("alone-type" if w == 0 else "known-type") if anomalous[w] else ""
            rows.writerow(
                [f"account-{seed}-{w}", int(anomalous[w]), kind, f"branch-{w // 2 if w % 9 == 0 else 'main'}"]
            )
    return events
