"""What a column of vectors is worth: average precision, with the column and without it, of all but the network.

Each account is judged by parts that were fitted without its fold, and campaigns are kept together. With `--pictures`
the log is made up: attackers push one picture under new items, whose ids tell nothing, as genuine users have new items,
too. Copies of a picture differ by noise, `--noise` of its length.

python tests/bench/vector_worth.py --events events.parquet --labels labels.csv --column text_vector
python tests/bench/vector_worth.py --pictures OUT --noise 0.05
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score

from service.encoding.values import Floats
from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset
from training.data.split import fold_numbers
from training.fit.pipeline import LINEAR_FOLDS, sample_of, with_offsets
from training.fit.sequences import encode
from training.fit.tabular import fit_tabular

ACCOUNTS, ITEMS, WIDTH, CAMPAIGNS, MEMBERS, NEW = 600, 300, 384, 12, 5, 0.15
DRAWS = 1000  # of the bootstrap over accounts


def pictures(out: Path, noise: float, seed: int) -> tuple[Path, Path]:
    """Writes a log with pictures behind its items, and its labels."""
    rng = np.random.default_rng(seed)
    catalogue = rng.normal(size=(ITEMS, WIDTH)) / np.sqrt(WIDTH)
    popular = 1 / np.arange(1, ITEMS + 1) ** 0.8
    rows, vectors, labels = [], [], []
    for account in range(ACCOUNTS + CAMPAIGNS * MEMBERS):
        campaign = (account - ACCOUNTS) // MEMBERS if account >= ACCOUNTS else -1
        if campaign >= 0 and (account - ACCOUNTS) % MEMBERS == 0:
            pushed = rng.normal(size=WIDTH) / np.sqrt(WIDTH)
        now = 1.7e9 + rng.uniform(0, 30 * 86400)
        for _ in range(int(rng.integers(12, 50))):
            now += rng.lognormal(4, 1.5)
            fresh, item = rng.random() < NEW, int(rng.choice(ITEMS, p=popular / popular.sum()))
            own = pushed if campaign >= 0 else rng.normal(size=WIDTH) / np.sqrt(WIDTH)
            vectors.append((own if fresh else catalogue[item]) + rng.normal(size=WIDTH) * noise / np.sqrt(WIDTH))
            rows.append((f"u{account}", round(now, 1), f"n{rng.integers(10**9)}" if fresh else f"i{item}"))
        group = f"c{campaign}" if campaign >= 0 else None
        labels.append((f"u{account}", int(campaign >= 0), group, group))
    out.mkdir(parents=True, exist_ok=True)
    events = pl.DataFrame(rows, ["sequence_id", "ts", "item_id"], orient="row")
    events = events.with_columns(
        picture=pl.Series(np.array(vectors, dtype=np.float32).tolist(), dtype=pl.List(pl.Float32))
    )
    events.write_parquet(out / "events.parquet")
    names = ["sequence_id", "label", "split_group", "campaign"]
    pl.DataFrame(labels, names, orient="row", infer_schema_length=None).write_csv(out / "labels.csv")
    return out / "events.parquet", out / "labels.csv"


def judged(events: Path, labels: Path, kinds: str, seed: int) -> tuple[Floats, Floats]:
    """Label and log odds of each account that has a label."""
    config = FitConfig(seed=seed, kinds=kinds, test_share=0.0, preset="tiny").settled
    data = Dataset.read(events, labels, config if kinds else WHOLE)
    known = np.flatnonzero(data.labels.known)
    read = encode(data.log.subset(known), data.labels.subset(known), config)
    fold = fold_numbers(read.labels, LINEAR_FOLDS, seed)[read.of]
    fitted = fit_tabular(sample_of(read, config.min_holders), max(len(read.types), 1), fold)
    offsets = np.array([e.offset for e in with_offsets(read, fitted, config)])
    return read.label[: len(known)].astype(np.float64), offsets[: len(known)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--column", default="picture")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    events, labels = asked.events, asked.labels
    if asked.pictures is not None:
        events, labels = pictures(asked.pictures, asked.noise, asked.seed)
    label, without = judged(events, labels, f"{asked.column}=ignore", asked.seed)
    _, beside = judged(events, labels, "", asked.seed)
    drawn = np.random.default_rng(asked.seed).integers(0, len(label), (DRAWS, len(label)))
    found = {"without": without, "with": beside}
    each = {n: np.array([average_precision_score(label[d], s[d]) for d in drawn]) for n, s in found.items()}
    each["gain"] = each["with"] - each["without"]
    whole = {n: average_precision_score(label, s) for n, s in found.items()}
    whole["gain"] = whole["with"] - whole["without"]
    print(f"{len(label)} accounts, {int(label.sum())} anomalous")
    for name, of in each.items():
        low, high = np.quantile(of, (0.025, 0.975))
        print(f"{name}: average precision {whole[name]:.4f} ({low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
