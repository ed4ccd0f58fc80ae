import csv
import io
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.config import FitConfig
from training.fit.bundle import fit_bundle

ACCOUNTS, LEAST = 320, 5


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
        text=pl.Series([f"bought it for {name} and it was fine again" for name in rarely("person", 30, 0.2)]),
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


def contents(folder: Path) -> dict[str, bytes]:
    """All that a bundle's files hold: arrays unpacked, headers of weights apart, graphs as they are."""
    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(io.BytesIO(content)) as arrays:
                content = b"".join(name.encode() + arrays[name].tobytes() for name in arrays.files)
        elif path.suffix == ".safetensors":
            content = content[8 : 8 + struct.unpack("<Q", content[:8])[0]]
        found[path.name] = content
    return found


def strings(events: pl.DataFrame) -> dict[str, int]:
    """How many accounts hold each string of a log: values, and the words of texts."""
    held = []
    for name, kind in events.schema.items():
        if kind == pl.String:
            column = events.select("sequence_id", value=pl.col(name).str.to_lowercase())
            held += [column, column.with_columns(pl.col("value").str.split(" ")).explode("value")]
    return dict(pl.concat(held).unique().group_by("value").len().iter_rows())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_anonymous_bundle_names_nothing_that_few_accounts_hold(seed: int, tmp_path: Path) -> None:
    events = named_log(tmp_path, seed)
    rare = [value for value, holders in strings(events).items() if holders < LEAST]
    assert len(rare) > 300
    config = FitConfig(preset="tiny", epochs=1, folds=1, min_holders=LEAST, test_share=0.2)
    told = "device=categorical,town=categorical,shelf=categorical"
    bundle = fit_bundle(
        tmp_path / "events.csv", tmp_path / "labels.csv", tmp_path / "b", FitConfig(**vars(config) | {"kinds": told})
    )
    found = contents(bundle.path)
    assert {"crowd.npz", "report.html", "evaluation.json", "golden.jsonl"} <= found.keys()
    text = {name: content.lower() for name, content in found.items()}
    assert "item-common-1" in text["encoder.json"].decode()
    hits = {(name, value) for name, content in text.items() for value in rare if value.encode() in content}
    assert hits == set()
    assert b"known-type" in text["evaluation.json"]
    assert not any(b"alone-type" in content for content in text.values())
