"""What genuine accounts show beside a crowd that is larger than the one that training knew.

Made-up accounts name twenty items each of a catalogue of 2,000, within a day or over two months. A part of them is what
a fit knows; the places that 5 % and 1 % of these lie beyond are where alarms would be put. Then all of them arrive.

    python tests/bench/crowd_growth.py
"""

import numpy as np

from service.encoding.held import Held
from service.model.togetherness import MEASURES, Together
from tests.support.crowds import DAY, NOW, zipf
from training.data.replay import read_crowd
from training.fit.crowd import fit_crowd

ACCOUNTS, SHOWN, DAYS = 4000, 400, 60


def accounts(over_all: bool) -> list[Held]:
    """The accounts, active within a day or over all of the time."""
    log, rng = zipf(ACCOUNTS, seed=3, days=DAYS), np.random.default_rng(3)
    if not over_all:
        return log
    times = [np.sort(NOW - rng.uniform(0, DAYS * DAY, one.length)) for one in log]
    return [Held(one.keys, one.sided, ts, one.event, one.length) for one, ts in zip(log, times, strict=True)]


def main() -> None:
    print("active | accounts of the fit | share asked | " + " | ".join(MEASURES))
    for over_all in (False, True):
        everybody = accounts(over_all)
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
                print(f"{'two months' if over_all else 'a day'} | {known} | {share} | {beyond}")


if __name__ == "__main__":
    main()
