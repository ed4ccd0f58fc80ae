"""Writes what people judged in the form of a log with labels, from which a model is fitted."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from service.encoding.columns import columns_of
from service.model.scorer import UNKNOWN_TYPE


def write(judged: Iterable[dict[str, Any]], out: Path) -> tuple[int, int]:
    """Writes events.jsonl and labels.csv; returns how many sequences, and on how many verdicts contradict each other.

    Args:
        judged: answers with verdicts, as `Store.judged` has them.
        out: the folder, which is made if need be.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = conflicts = 0
    with (out / "events.jsonl").open("w") as events, (out / "labels.csv").open("w", newline="") as file:
        labels = csv.writer(file)
        labels.writerow(["sequence_id", "label", "type", "split_group"])
        for answer in judged:
            columns, length = columns_of(answer["events"])
            for at in range(length):
                event = {name: values[at] for name, values in columns.items() if values[at] is not None}
                # ours last: an event may bring a sequence_id of its own, in clear and unknown to the labels
                events.write(json.dumps({**event, "sequence_id": answer["score_id"]}) + "\n")
            anomalous = answer["verdict"] == "anomalous"
            kind = answer["said_type"] or (answer["type"] if answer["type"] != UNKNOWN_TYPE else None)
            group = answer["user_id"] or answer["sequence_id"]
            labels.writerow([answer["score_id"], int(anomalous), (kind or "") if anomalous else "", group])
            count, conflicts = count + 1, conflicts + bool(answer["conflict"])
    return count, conflicts
