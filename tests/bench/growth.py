"""How time and memory grow with a log's size and with the length of its sequences.

    python tests/bench/growth.py --events build/demo/events.csv --labels build/demo/labels.csv \
        --bundle build/demo/bundle --out deploy/growth

Larger logs are the given one with its users drawn again and again under new names. Each measurement is a command of its
own, whose processor time and peak memory the system tells. Writes OUT.json and OUT.svg; what OUT.json holds already is
not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import polars as pl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

LENGTHS = (10, 30, 100, 300, 1000, 3000, 10_000)
EVENTS_OF_LENGTHS = 300_000


def command(*arguments: str) -> dict[str, float]:
    """Processor time, seconds, and peak memory, MB, of `recguard-train` with some arguments."""
    process = subprocess.Popen([sys.executable, "-m", "training.cli", *arguments, "--quiet"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"recguard-train {' '.join(arguments)} failed")
    return {"seconds": round(usage.ru_utime + usage.ru_stime, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def larger(table: pl.DataFrame, factor: int) -> pl.DataFrame:
    """The log so many times over, each time with other names of its sequences."""
    name = pl.col("sequence_id").cast(pl.String)
    return pl.concat(table.with_columns((name + f"-{k}").alias("sequence_id")) for k in range(factor))


def of_length(table: pl.DataFrame, length: int) -> pl.DataFrame:
    """EVENTS_OF_LENGTHS events in sequences of one length, cut from the log one behind the other."""
    events = pl.concat([table] * -(-EVENTS_OF_LENGTHS // table.height)).head(EVENTS_OF_LENGTHS)
    number = pl.int_range(pl.len()) // length
    return events.with_columns(
        ("s" + number.cast(pl.String)).alias("sequence_id"),
        (1.7e9 + 60.0 * pl.int_range(pl.len())).alias("ts"),
    )


def plot(found: dict[str, dict[str, dict[str, float]]], out: Path) -> None:
    """Draws what was measured at two sizes or more, both axes logarithmic."""
    panels = [
        ("score alone, by size of the log", "score", "events", "seconds"),
        ("score beside the log, by its size", "crowd", "events", "seconds"),
        ("fit, by size of the log", "fit", "events", "seconds"),
        ("score, by length of the sequences", "length", "events a sequence", "microseconds an event"),
    ]
    panels = [panel for panel in panels if len(found[panel[1]]) > 1]
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained")
    for axis, (title, part, x, y) in zip(axes, panels, strict=True):
        points = sorted((int(k), v) for k, v in found[part].items())
        at = [k for k, _ in points]
        per = 1e6 / EVENTS_OF_LENGTHS if part == "length" else 1
        axis.loglog(at, [per * v["seconds"] for _, v in points], "o-", color="#1f5fa8", label=y)
        axis.loglog(at, [v["peak_mb"] for _, v in points], "s--", color="#b3541e", label="peak memory, MB")
        axis.set(title=title, xlabel=x)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(out.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--events", "--labels", "--bundle", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--sizes", default="1,3,10,30")
    parser.add_argument("--fit-sizes", default="1,3,10,30")
    given = parser.parse_args()
    file = given.out.with_suffix(".json")
    found = json.loads(file.read_text()) if file.exists() else {"score": {}, "crowd": {}, "fit": {}, "length": {}}
    table = pl.read_csv(given.events, schema_overrides={"sequence_id": pl.String})
    labels = pl.read_csv(given.labels, infer_schema=False)
    with TemporaryDirectory() as folder:
        place = Path(folder)

        def keep(part: str, key: int, result: dict[str, float]) -> None:
            found[part][str(key)] = result
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(part, key, result, flush=True)

        def score(log: pl.DataFrame, name: str, crowd: str = "none") -> dict[str, float]:
            (place / name).mkdir()
            for k, some in enumerate(log.iter_slices(500_000)):
                some.write_parquet(place / name / f"{k:03d}.parquet")
            events, out = str(place / name), str(place / f"{name}-scores")
            return command("score", "--bundle", str(given.bundle), "--events", events, "--out", out, "--crowd", crowd)

        plain = table.drop("event_label")
        for size in map(int, filter(None, given.sizes.split(","))):
            if str(size * table.height) not in found["score"]:
                keep("score", size * table.height, score(larger(plain, size), f"size-{size}"))
            if str(size * table.height) not in found["crowd"]:
                keep("crowd", size * table.height, score(larger(plain, size), f"crowd-{size}", "log"))
        for length in LENGTHS:
            if str(length) not in found["length"]:
                keep("length", length, score(of_length(plain, length), f"length-{length}"))
        for size in map(int, filter(None, given.fit_sizes.split(","))):
            if str(size * table.height) not in found["fit"]:
                larger(table, size).write_csv(place / "events.csv")
                larger(labels, size).write_csv(place / "labels.csv")
                files = ("--events", str(place / "events.csv"), "--labels", str(place / "labels.csv"))
                keep("fit", size * table.height, command("fit", *files, "--out", str(place / "bundle")))
    plot(found, given.out)


if __name__ == "__main__":
    main()
