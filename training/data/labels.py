"""What is known of a log's sequences: reads label tables and aligns them with the log."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.data.clean import CleaningReport, read_table
from training.data.columns import names
from training.data.log import Log, LogError

logger = logging.getLogger(__name__)
UNLABELLED = -100  # an event without a label, a sequence without a type


@dataclass(frozen=True)
class Labels:
    """Labels of a log's sequences, in the log's order.

    Attributes:
        known: bool (N,), whether the sequence has a label.
        label: int8 (N,), 1 anomalous, 0 normal; 0 where unknown.
        types: each sequence's anomaly type; None if it is normal or has no named type.
        split_group: sequences with the same value must stay in one part of a split; None is a group of its own.
        groups: further columns of the label table, for rates by group.
    """

    known: NDArray[np.bool_]
    label: NDArray[np.int8]
    types: list[str | None]
    split_group: list[str | None]
    groups: pl.DataFrame

    def subset(self, indices: NDArray[np.int64]) -> "Labels":
        return Labels(
            self.known[indices],
            self.label[indices],
            [self.types[i] for i in indices],
            [self.split_group[i] for i in indices],
            self.groups[indices] if self.groups.width else self.groups,
        )

    @classmethod
    def none(cls, count: int) -> "Labels":
        """Labels for `count` sequences of which nothing is known."""
        nothing: list[str | None] = [None] * count
        return cls(np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int8), nothing, nothing, pl.DataFrame())

    @classmethod
    def of(cls, ids: list[str], table: pl.DataFrame) -> "Labels":
        """The labels that a table (`sequence_id,label`, optional `type` and `split_group`) has for these sequences."""
        joined = pl.DataFrame({"sequence_id": ids}).join(table, on="sequence_id", how="left", maintain_order="left")
        label = joined["label"].fill_null(0).cast(pl.Int8).to_numpy()
        types, groups = (
            (joined[name] if name in joined.columns else pl.Series([None] * len(ids))).cast(pl.String).to_list()
            for name in ("type", "split_group")
        )
        return cls(
            joined["label"].is_not_null().to_numpy(),
            label,
            [(t.strip() or None) if t and y else None for t, y in zip(types, label, strict=True)],
            groups,
            joined.drop("sequence_id", "label", "type", "split_group", strict=False),
        )


def read_label_table(path: Path) -> pl.DataFrame:
    """Reads a label table: `sequence_id`, `label` as a number, and its other columns, one row per sequence.

    Raises:
        LogError: a missing column, a label other than 0 or 1, two labels for one sequence.
    """
    table = read_table(path)
    for name in ("sequence_id", "label"):
        if name not in table.columns:
            raise LogError(f"{path}: column {name!r} is missing; present: {', '.join(table.columns)}")
    ids, given = names(table["sequence_id"]), table["label"]
    label = given.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    wrong = (~label.is_in([0.0, 1.0]).fill_null(False)).arg_true()
    if len(wrong):
        at = int(wrong[0])
        raise LogError(f"{path}, row {at + 2}: label is {given[at]!r}; it must be 0 (normal) or 1 (anomalous)")
    table = table.with_columns(ids, label.alias("label"))
    clash = (
        table.group_by("sequence_id", maintain_order=True).agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    )
    if clash.height:
        raise LogError(
            f"{path}: sequence {clash['sequence_id'][0]!r} has both labels, and {clash.height - 1} more do; keep one"
        )
    return table.unique("sequence_id", keep="first", maintain_order=True)


def read_labels(path: Path, log: Log, report: CleaningReport, max_bad_share: float = 0.05) -> Labels:
    """Reads a label table and aligns it with a log.

    Raises:
        LogError: a missing column, a label other than 0 or 1, two labels for one sequence, no sequence in common, more
            than `max_bad_share` of the labels for sequences that the log lacks, or only one class left.
    """
    table = read_label_table(path)
    labels = Labels.of(log.ids, table)
    known = labels.known
    orphans, unlabelled = table.height - int(known.sum()), int((~known).sum())
    report.labels = {"labels": table.height, "labels without events": orphans, "sequences without a label": unlabelled}
    if not known.any():
        raise LogError(
            f"{path}: none of its {table.height} sequences is in the log; it names "
            f"{table['sequence_id'][0]!r}, the log {log.ids[0]!r}"
        )
    if orphans:
        missing = table.join(pl.DataFrame({"sequence_id": log.ids}), on="sequence_id", how="anti")["sequence_id"][0]
        message = f"{path}: {orphans} of {table.height} labels have no events, first for sequence {missing!r}"
        if orphans > max_bad_share * table.height:
            raise LogError(f"{message}. More than {max_bad_share:.0%} is taken for the wrong file")
        logger.warning(message)
    if unlabelled:
        logger.warning(
            "%s: %d of %d sequences have no label and take no part in supervised training", path, unlabelled, len(log)
        )
    if len(set(labels.label[known].tolist())) < 2:
        raise LogError(
            f"{path}: every labelled sequence has label {labels.label[known][0]}; "
            "both 0 and 1 are needed to learn the difference"
        )
    return labels
