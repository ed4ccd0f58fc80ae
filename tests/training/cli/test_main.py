from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from service.model.scorer import Model, Score
from tests.support.training import command, refused


def test_score_writes_a_row_for_every_sequence_in_order_with_a_reason_where_there_is_no_score(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(2000)
    bad = events.head(1).with_columns(sequence_id=pl.lit("broken"), ts=pl.lit("-1"))
    pl.concat([events, bad]).write_csv(tmp_path / "e.csv")
    command(
        "score",
        "--bundle",
        bundle.path,
        "--events",
        tmp_path / "e.csv",
        "--out",
        tmp_path / "s.csv",
        "--event-scores",
        tmp_path / "es.csv",
    )
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    assert scores.columns == ["sequence_id", "score", "decision", "type", "reason"]
    assert scores["sequence_id"].to_list() == [*events["sequence_id"].unique(maintain_order=True), "broken"]
    assert scores["score"].is_null().to_list() == [False] * (scores.height - 1) + [True]
    assert "set aside" in scores["reason"][-1]
    per_event = pl.read_csv(tmp_path / "es.csv")
    assert per_event.height == 2000
    assert per_event["score"].is_between(0, 1).all()


def test_scores_from_the_command_are_those_of_the_model(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema_length=None, schema_overrides={"sequence_id": pl.String})
    wanted = events["sequence_id"][0]
    events.filter(pl.col("sequence_id") == wanted).write_csv(tmp_path / "e.csv")
    command("score", "--bundle", bundle.path, "--events", tmp_path / "e.csv", "--out", tmp_path / "s.csv")
    model = Model.load(bundle)
    rows = events.filter(pl.col("sequence_id") == wanted).to_dicts()
    [answer] = model.scores([columns_of(rows)])
    assert isinstance(answer, Score)
    assert pl.read_csv(tmp_path / "s.csv")["score"][0] == pytest.approx(answer.score, abs=1e-5)


def test_a_log_of_words_alone_trains_through_the_same_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad = ["lovely", "shoes", "fit", "well", "colour"], ["win", "free", "click", "prize", "now"]
    rows = [" ".join(rng.choice(bad if i % 3 == 0 else good, 8)) + f" {i}" for i in range(300)]
    pl.DataFrame({"sequence_id": [f"m{i}" for i in range(300)], "text": rows}).write_csv(tmp_path / "e.csv")
    pl.DataFrame(
        {"sequence_id": [f"m{i}" for i in range(300)], "label": [int(i % 3 == 0) for i in range(300)]}
    ).write_csv(tmp_path / "l.csv")
    command(
        "fit",
        "--events",
        tmp_path / "e.csv",
        "--labels",
        tmp_path / "l.csv",
        "--out",
        tmp_path / "b",
        "--preset",
        "tiny",
        "--epochs",
        2,
        "--quiet",
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["feature_spec"] == {"text": "text"}
    assert bundle.manifest["metrics"]["test"]["auc"] > 0.95


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("sequence_id,label\na,0\n", "none of its 1 sequences is in the log"),
        ("sequence_id\na\n", "column 'label' is missing"),
        ("", "the file is empty"),
    ],
)
def test_bad_labels_end_the_command_with_one_clear_line(attacked: Path, tmp_path: Path, labels: str, says: str) -> None:
    (tmp_path / "l.csv").write_text(labels)
    assert says in refused(
        "fit", "--events", attacked / "events.csv", "--labels", tmp_path / "l.csv", "--out", tmp_path / "b"
    )
    assert not (tmp_path / "b").exists()
