"""What genuine accounts show beside a crowd that is larger than the one that training knew.

Made-up accounts name twenty items each of a catalogue of 2,000, within a day or over two months. A part of them is what
a fit knows; the places that 5 % and 1 % of these lie beyond are where alarms would be put. Then all of them arrive.

    python tests/bench/crowd_growth.py
    python tests/bench/crowd_growth.py --out D

With `--out` the accounts that are active within a day are written as logs, all.csv and few.csv, which has every tenth.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from service.encoding.held import Held
from service.model.togetherness import MEASURES, Together
from tests.support.crowds import DAY, NOW, zipf
from training.data.replay import read_crowd
from training.fit.crowd import fit_crowd

ACCOUNTS, SHOWN, DAYS = 4000, 400, 60


def accounts(active: str) -> list[Held]:
    """The accounts, as they are active."""
    log, rng = zipf(ACCOUNTS, seed=3, days=DAYS), np.random.default_rng(3)
    if active == "a day":
        return log
    times = [np.sort(NOW - rng.uniform(0, DAYS * DAY, one.length)) for one in log]
    if active == "two months, told by the day":
        times = [ts // DAY * DAY for ts in times]
    if active == "no times":
        times = [np.full_like(ts, np.nan) for ts in times]
    return [replace(one, ts=ts) for one, ts in zip(log, times, strict=True)]


def write(out: Path) -> None:
    """Writes the logs, with ratings that say nothing."""
    everybody, rng = accounts("a day"), np.random.default_rng(3)
    ids = [np.full(one.length, i) for i, one in enumerate(everybody)]
    log = pl.DataFrame(
        {
            "sequence_id": np.concatenate(ids),
            "ts": np.concatenate([one.ts for one in everybody]),
            "item_id": np.concatenate([one.keys for one in everybody]),
            "rating": rng.choice(np.arange(1, 6), sum(map(len, ids)), p=(0.05, 0.1, 0.25, 0.35, 0.25)),
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    log.write_csv(out / "all.csv")
    log.filter(pl.col("sequence_id") % 10 == 0).write_csv(out / "few.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    if out := parser.parse_args().out:
        return write(out)
    print("active | accounts of the fit | share asked | " + " | ".join(MEASURES))
    for active in ("a day", "two months", "two months, told by the day", "no times"):
        everybody = accounts(active)
        shown = np.arange(ACCOUNTS - SHOWN, ACCOUNTS)
        for known in (ACCOUNTS, ACCOUNTS // 10, ACCOUNTS // 33):
            train = everybody[:known]
            all_of_it = np.ones(known, dtype=bool)
            usual, told = fit_crowd(train, train, np.arange(known), all_of_it, all_of_it, 0)
            assert usual is not None, "too few accounts for a crowd"
            before = Together.joined(told).measures
            after = Together.joined(read_crowd(usual, everybody, [everybody[i] for i in shown], shown)).measures
            for share in (0.05, 0.01):
                place = np.nanquantile(before, 1 - share, axis=0)
                beyond = " | ".join(f"{one:.3f}" for one in (after > place).mean(axis=0))
                print(f"{active} | {known} | {share} | {beyond}")


if __name__ == "__main__":
    main()
