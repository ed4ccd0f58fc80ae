"""What the crowd shows of accounts that push one rare item, in a log of items alone, without ratings or times.

    python tests/bench/items_alone.py --events events.csv [--later] [--seed N]

The log is one of genuine accounts. Half of them, with what `inject` adds to such a log, is what a model is fitted on:
half at random or, with `--later`, those whose last event comes first. The others are the crowd, to which accounts come
that hold items as popular as those of genuine accounts, and one target that few hold. Printed are shares of genuine
accounts and of these that are flagged, alone and beside the crowd, and their recall at 1 % false alarms, by the score
and by the surge alone; means over TARGETS targets.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.model.togetherness import MEASURES
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

SIZES, TARGETS = (10, 25, 50), 4
RARE = 0.4  # share of the items, the least popular, of which a target is one
SHORTEST, LONGEST = 20, 150
SURGE = MEASURES.index("surge")


def read(events: pl.DataFrame) -> Log:
    """The log of such events, as a file of them is read."""
    with TemporaryDirectory() as folder:
        events.select("sequence_id", "item_id").write_csv(Path(folder) / "events.csv")
        return clean_events(Path(folder) / "events.csv")[0]


def campaign(genuine: Log, size: int, rng: np.random.Generator) -> Log:
    """The log with accounts that share a target."""
    events = genuine.events.select("sequence_id", "item_id")
    by_item = events["item_id"].value_counts().sort("count", "item_id")
    items, share = by_item["item_id"], by_item["count"].to_numpy() / len(events)
    target = items[int(rng.integers(round(RARE * len(items))))]
    added = []
    for number in range(size):
        length = int(np.clip(rng.choice(np.diff(genuine.offsets)), SHORTEST, min(LONGEST, len(items))))
        held = items.gather(rng.choice(len(items), length, replace=False, p=share)).to_list()
        row = pl.DataFrame({"item_id": rng.permutation([target, *(item for item in held if item != target)]).tolist()})
        added.append(row.select(pl.lit(f"attacker {number}").alias("sequence_id"), pl.col("item_id")))
    return read(pl.concat([events, *added], how="vertical_relaxed"))


def shown(fitted: Fitted, log: Log, attacks: NDArray[np.bool_]) -> list[float]:
    """Genuine accounts flagged, attackers flagged, alone and then beside the log; recall by the score, and by surge."""
    found = []
    for beside in (None, log):
        evidence = fitted.evidence(log, beside, False)
        answers = fitted.scorer.scores(evidence)
        flagged = np.array([fitted.thresholds.decide(a.score, a.false_alarm_rate) != "allow" for a in answers])
        found += [flagged[~attacks].mean(), flagged[attacks].mean()]
    for measure in (np.array([a.score for a in answers]), evidence.together.measures[:, SURGE]):
        found.append((measure[attacks] > np.quantile(measure[~attacks], 0.99, method="higher")).mean())
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--later", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, config = np.random.default_rng(given.seed), FitConfig(seed=given.seed)
    timed, _ = clean_events(given.events)
    ends = timed.events["ts"].to_numpy()[timed.offsets[1:] - 1]
    order = np.argsort(ends, kind="stable") if given.later else rng.permutation(len(timed))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    past, genuine = (read(timed.subset(half).events) for half in halves)
    events, table, _ = inject(past, None, InjectConfig(seed=given.seed))
    log = Log.of(events)
    fitted = fit_model(log, Labels.of(log.ids, table), np.arange(len(log)), config)
    print("accounts | genuine flagged, attackers flagged: alone | beside | recall at 1 %: score | surge alone")
    for size in SIZES:
        rows = []
        for _ in range(TARGETS):
            attacked = campaign(genuine, size, rng)
            attacks = np.char.startswith(np.array(attacked.ids, dtype=str), "attacker")
            rows.append(shown(fitted, attacked, attacks))
        a, b, c, d, e, f = np.mean(rows, axis=0)
        print(f"{size} | {a:.3f}, {b:.2f} | {c:.3f}, {d:.2f} | {e:.2f} | {f:.2f}", flush=True)


if __name__ == "__main__":
    main()
