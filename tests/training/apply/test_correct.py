"""Damaged fields are found and set right, in each form a log may have, and it can be undone."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.model.bundle import Bundle
from service.model.scorer import Model
from training.apply.correct import Corrector, as_written
from training.apply.repair import AUDIT, repair_log, undo
from training.config import FitConfig
from training.data.log import LogError
from training.fit.bundle import fit_bundle

EVENTS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of strict habits, in half of whose anomalous sequences a few events are damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for user in range(240):
        category, now, is_damaged = f"C{user % 4}", 1.7e9 + 1000 * user, user % 3 == 0
        hit = set(rng.choice(np.arange(2, EVENTS), 4, replace=False).tolist()) if is_damaged else set()
        for k in range(EVENTS):
            now += 60 + int(rng.integers(0, 20))
            rating = 1 + user % 4
            rows.append(
                {
                    "sequence_id": f"u{user}",
                    "ts": int(now),
                    "action": "view",
                    "category": f"C{(user + 1) % 4}" if k in hit else category,
                    "rating": 9 if k in hit else rating,
                    "event_label": int(k in hit),
                }
            )
        labels.append({"sequence_id": f"u{user}", "label": int(is_damaged), "type": "damage" if is_damaged else None})
    pl.DataFrame(rows).write_csv(folder / "events.csv")
    pl.DataFrame(labels).write_csv(folder / "labels.csv")
    return folder


@pytest.fixture(scope="module")
def masking(folder: Path) -> Bundle:
    # so few sequences cannot promise the usual 1 % of blocks, and only what is blocked is corrected
    config = FitConfig(preset="tiny", layers=1, epochs=2, folds=1, pretrain_epochs=16, block_fpr=0.05, seed=1)
    return fit_bundle(folder / "events.csv", folder / "labels.csv", folder / "bundle", config)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_is_damaged_is_set_right_and_can_be_undone(
    masking: Bundle, folder: Path, tmp_path: Path, kind: str
) -> None:
    table = pl.read_csv(folder / "events.csv")
    path = tmp_path / f"log.{kind}"
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[kind](path)
    found = repair_log(Model.load(masking), path, tmp_path / "out", "correct", part_bytes=20_000)
    damaged = table["event_label"].to_numpy() == 1
    assert found.corrected > 0.6 * damaged.sum()
    audit = [json.loads(line) for line in (tmp_path / "out" / AUDIT).read_text().splitlines()]
    corrected = [a["row"] for a in audit if a["what"] == "correct"]
    assert len(corrected) == found.corrected == len([a for a in audit if a["new"]])
    assert "likely beside the other events" in audit[0]["reason"]
    read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[kind]
    after = read(tmp_path / "out" / path.name)
    assert after.height == table.height - found.dropped
    assert after.schema == table.schema
    assert damaged[corrected].mean() > 0.95
    users = [int(a["sequence_id"][1:]) for a in audit if a["new"]]
    kept = np.setdiff1d(np.arange(table.height), [a["row"] for a in audit if not a["new"]])
    assert after["sequence_id"].equals(table["sequence_id"][kept]), "nothing is out of its place"
    new = after[np.searchsorted(kept, corrected)]
    for column, right in (("category", [f"C{u % 4}" for u in users]), ("rating", [1 + u % 4 for u in users])):
        before = (table[column][corrected] == pl.Series(right)).mean()
        assert (new[column] == pl.Series(right)).mean() > max(0.6, before + 0.3)
    undo(tmp_path / "out" / path.name, tmp_path / f"back.{kind}")
    assert read(tmp_path / f"back.{kind}").equals(table)
    if kind != "parquet":
        assert (tmp_path / f"back.{kind}").read_bytes() == path.read_bytes()


def test_a_time_is_set_right_between_its_neighbours(masking: Bundle) -> None:
    ts: list[object] = [1.7e9 + 70.0 * k for k in range(EVENTS)]
    ts[5] = float(1.7e9 + 70 * 4 + 0.1)
    columns = {"ts": ts, "action": ["view"] * EVENTS, "category": ["C1"] * EVENTS, "rating": [2] * EVENTS}
    encoded = masking.encoder.encode(columns, EVENTS)
    corrections = Corrector(masking).corrections(columns, encoded)
    found = {c.column: c for c in corrections[5]}
    assert ts[4] + 30 < found["ts"].value <= ts[6]
    assert "time gap 0.05 to 0.1 s is" in found["ts"].reason or "time gap 0.1 to 0.2 s is" in found["ts"].reason
    assert corrections.keys() <= {5, 6}, "the gap after it is too long as well"


def test_values_are_written_as_the_log_writes_them() -> None:
    assert as_written("C1", "C2") == "C1"
    assert as_written(4.0, "5") == "4"
    assert as_written(4.25, "5.0") == "4.25"
    assert as_written(4.25, None) == 4.25
    assert as_written(4.25, "5,5", comma=True) == "4,25"


def test_a_bundle_without_a_masked_model_says_so(bundle: Bundle) -> None:
    with pytest.raises(LogError, match="has no masked-event model"):
        Corrector(bundle)
