"""Compares one model for all cuts with an older release that is fitted on each cut alone.

    python tests/bench/specialist.py EVENTS LABELS OLD_CHECKOUT OUT [SEED]

A third of the accounts is for testing. This tree is fitted on the others as they are, the old one on each cut of them.
Both score the cut histories of the same test accounts, and both recalls are at the same share of genuine ones. What is
in OUT already is not made again.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from training.data.cuts import Cuts, cut_to, in_time_order, labels_of
from training.data.dataset import WHOLE, Dataset
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import Indices, folds
from training.evaluation.early import against

HERE = Path(__file__).parents[2]
CUTS = ("first 10", "first 20", "latest 20", "latest 64", "whole")
RATES = (0.05, 0.01)


def write(log: Log, labels: Labels, at: Indices, cut: Cuts, folder: Path) -> None:
    """Writes the cuts of the sequences at `at` as a log, without those that are neither genuine nor anomalous."""
    shown = cut.of_log(log, ())
    truth = labels_of(cut, shown, labels)
    kept = np.flatnonzero(truth.known & np.isin(cut.of, at))
    truth, names = truth.subset(kept), [shown.ids[i] for i in kept.tolist()]
    folder.mkdir(parents=True, exist_ok=True)
    shown.subset(kept).events.write_csv(folder / "events.csv")
    pl.DataFrame(
        {"sequence_id": names, "label": truth.label, "type": truth.types, "split_group": truth.split_group}
    ).write_csv(folder / "labels.csv")


def train(tree: Path, *command: str | Path) -> None:
    """Runs `recguard-train` of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(
        [sys.executable, "-m", "training.cli", *map(str, command), "--quiet"], cwd=tree, env=environment, check=True
    )


def fit(tree: Path, folder: Path, seed: str) -> Path:
    """The bundle that a tree fits on a folder's log."""
    if not (folder / "bundle").exists():
        log = ("--events", folder / "events.csv", "--labels", folder / "labels.csv")
        train(tree, "fit", *log, "--out", folder / "bundle", "--seed", seed)
    return folder / "bundle"


def scores(tree: Path, bundle: Path, test: Path, name: str) -> pl.DataFrame:
    """The test accounts' labels with a bundle's scores."""
    if not (test / name).exists():
        train(tree, "score", "--bundle", bundle, "--events", test / "events.csv", "--out", test / name)
    text = {"sequence_id": pl.String}
    found = pl.read_csv(test / name, schema_overrides=text)
    known = pl.read_csv(test / "labels.csv", schema_overrides=text)
    return known.join(found.select("sequence_id", "score"), on="sequence_id", maintain_order="left")


def main(events: str, labels: str, old: str, out: str, seed: str = "0") -> None:
    data = Dataset.read(Path(events), Path(labels), WHOLE)
    log, folder, before = in_time_order(data.log), Path(out).resolve(), Path(old).resolve()
    lengths = np.diff(log.offsets)
    rest, test = folds(data.labels, 3, int(seed))[0]
    write(log, data.labels, rest, Cuts.whole(lengths), folder / "one")
    one = fit(HERE, folder / "one", seed)
    print(f"{'cut':10} {'type':16} {'rate':>5} {'n':>4} {'one':>6} {'other':>6} {'gain':>7} 95 %")
    for cut in CUTS:
        parts = folder / cut.replace(" ", "-")
        shown = cut_to(cut, lengths)
        write(log, data.labels, rest, shown, parts / "train")
        write(log, data.labels, test, shown, parts / "test")
        ours = scores(HERE, one, parts / "test", "one.csv")
        theirs = scores(before, fit(before, parts / "train", seed), parts / "test", "other.csv")
        found = [table["score"].to_numpy() for table in (ours, theirs)]
        genuine = (ours["label"] == 0).to_numpy()
        kinds = ours["type"].fill_null("").to_numpy()
        for rate in RATES:
            for kind in ("", *sorted(set(kinds[~genuine].tolist()))):
                among = ~genuine & ((kinds == kind) | (kind == ""))
                row = against((found[0][genuine], found[1][genuine]), (found[0][among], found[1][among]), rate)
                gain, low, high = row["gain"]
                print(
                    f"{cut:10} {kind or 'all':16} {rate:5.2f} {among.sum():4} {row['one']:6.3f} {row['other']:6.3f} "
                    f"{gain:+7.3f} {low:+.3f} to {high:+.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
