"""Sites that differ in users, items and attacks: each alone, federated, and all logs in one.

    python tests/bench/federated.py --out build/federated [--users 240] [--epochs 6] [--seed 0]

Each of three shops has users and items of its own and has seen other attacks. Each model judges new users of each shop,
among whom are attackers of all kinds. The average precision is the mean over the shops.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.support.logs import genuine_log
from training.data.clean import clean_events
from training.data.injection import InjectConfig, inject, write

SEEN = {
    "north": ["random_push", "crawler", "segment_nuke"],
    "east": ["click_farm", "average_nuke", "bandwagon_push"],
    "south": ["fake_order", "takeover", "random_nuke"],
}
ALL = [kind for kinds in SEEN.values() for kind in kinds]


def shop(name: str, users: int, seed: int, folder: Path, kinds: list[str]) -> None:
    """Writes the log of a shop with attackers of some kinds, and its labels."""
    table = genuine_log(users, seed).with_columns(
        pl.format("{}-{}-{}", pl.lit(name), pl.lit(seed), "sequence_id").alias("sequence_id"),
        pl.when(pl.col("item_id").str.tail(1).is_in(["0", "1", "2"]))  # some things are sold everywhere
        .then("item_id").otherwise(pl.format("{}-{}", pl.lit(name), "item_id")).alias("item_id"),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    write(folder, *inject(log, None, InjectConfig(size=0.08, filler=(0.1, 0.3), campaigns=(3,), seed=seed), kinds))
    for file in ("events.csv", "labels.csv"):  # attackers of two shops may not have the same name
        given = pl.read_csv(folder / file, infer_schema=False)
        ours = pl.col("sequence_id").str.starts_with(name)
        renamed = (
            pl.when(ours)
            .then("sequence_id")
            .otherwise(pl.format("{}-{}-{}", pl.lit(name), pl.lit(seed), "sequence_id"))
        )
        given.with_columns(renamed.alias("sequence_id")).write_csv(folder / file)


def run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "training.cli", *map(str, arguments), "--quiet"], check=True)


def judged(bundle: Path, test: Path) -> tuple[float, float]:
    """Average precision and AUC of a bundle on a labelled log."""
    out = test / f"{bundle.parent.name}-{bundle.name}.csv"
    run("score", "--bundle", bundle, "--events", test / "events.csv", "--out", out, "--crowd", "none")
    found = pl.read_csv(out, schema_overrides={"sequence_id": pl.String})
    found = found.join(pl.read_csv(test / "labels.csv", schema_overrides={"sequence_id": pl.String}), on="sequence_id")
    label, score = found["label"].to_numpy(), found["score"].to_numpy()
    return float(average_precision_score(label, score)), float(roc_auc_score(label, score))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out, seed = given.out, given.seed
    for number, (name, kinds) in enumerate(SEEN.items()):
        shop(name, given.users, 100 * seed + number, out / name, kinds)
        shop(name, given.users, 100 * seed + number + 50, out / f"{name}-test", ALL)
    (out / "pooled").mkdir(exist_ok=True)
    for file in ("events.csv", "labels.csv"):
        tables = [pl.read_csv(out / name / file, infer_schema=False) for name in SEEN]
        pl.concat(tables, how="diagonal").write_csv(out / "pooled" / file)
    seconds = {}
    for name in (*SEEN, "pooled"):
        start, here = time.perf_counter(), out / name
        files = ("--events", here / "events.csv", "--labels", here / "labels.csv")
        run("fit", *files, "--out", out / "alone" / name, "--epochs", given.epochs)
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    sites = [part for name in SEEN for part in ("--site", f"{name}={out / name}/events.csv,{out / name}/labels.csv")]
    run("federate", *sites, "--out", out / "federated", "--epochs", given.epochs)
    seconds["federated"] = time.perf_counter() - start
    rows = {}
    for way in ("alone", "federated", "pooled"):
        for test in SEEN:
            bundle = out / "alone" / "pooled" if way == "pooled" else out / way / test
            rows[f"{way} {test}"] = judged(bundle, out / f"{test}-test")
    mean = {
        way: np.mean([ap for row, (ap, _) in rows.items() if row.startswith(way)])
        for way in ("alone", "federated", "pooled")
    }
    found = {"ap": mean, "rows": rows, "seconds": seconds}
    (out / "federated.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
