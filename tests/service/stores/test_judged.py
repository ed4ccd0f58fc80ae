import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from service.model.scorer import UNKNOWN_TYPE
from service.stores.judged import write


def answer(number: int, **more: Any) -> dict[str, Any]:
    """An answer with a verdict, as the store has it; `more` comes on top."""
    events = [{"item_id": "i1", "sequence_id": "hers"}, {"item_id": "i2", "price": 3.5}]
    plain = {"verdict": "normal", "said_type": None, "type": "crawler", "user_id": None, "conflict": 0}
    return {"score_id": f"score-{number}", "sequence_id": f"s{number}", "events": events} | plain | more


def test_events_go_by_the_name_that_the_labels_know(tmp_path: Path) -> None:
    assert write([answer(1), answer(2)], tmp_path / "new" / "folder") == (2, 0)
    lines = (tmp_path / "new" / "folder" / "events.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines[:2])
    assert first == {"item_id": "i1", "sequence_id": "score-1"}, "nothing that the event brought, and no empty price"
    assert second == {"item_id": "i2", "price": 3.5, "sequence_id": "score-1"}
    labels = pl.read_csv(tmp_path / "new" / "folder" / "labels.csv")
    assert (
        labels["sequence_id"].to_list()
        == ["score-1", "score-2"]
        == sorted({json.loads(x)["sequence_id"] for x in lines})
    )


@pytest.mark.parametrize(
    ("said", "label", "kind"),
    [
        ({"verdict": "normal"}, 0, None),
        ({"verdict": "anomalous"}, 1, "crawler"),
        ({"verdict": "anomalous", "said_type": "click_farm"}, 1, "click_farm"),
        ({"verdict": "anomalous", "type": UNKNOWN_TYPE}, 1, None),
        ({"verdict": "anomalous", "type": None}, 1, None),
    ],
)
def test_a_type_is_what_a_person_says_or_else_the_model_and_only_of_an_anomaly(
    said: dict[str, Any], label: int, kind: str | None, tmp_path: Path
) -> None:
    write([answer(1, **said)], tmp_path)
    row = pl.read_csv(tmp_path / "labels.csv", schema_overrides={"type": pl.String}).row(0, named=True)
    assert (row["label"], row["type"]) == (label, kind)


def test_answers_for_one_user_stay_together_and_contradictions_are_counted(tmp_path: Path) -> None:
    given = [answer(1, user_id="u"), answer(2, user_id="u", conflict=1), answer(3)]
    assert write(given, tmp_path) == (3, 1)
    assert pl.read_csv(tmp_path / "labels.csv")["split_group"].to_list() == ["u", "u", "s3"]
