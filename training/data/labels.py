"""What is known of a log's sequences: reads label tables and aligns them with the log."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.values import quoted
from training.data.classes import not_plain, read_classes
from training.data.clean import CleaningReport
from training.data.columns import names
from training.data.log import Log, LogError, brief
from training.data.read import AS_FOUND, ReadOptions, first_row, read_table

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
        groups: further columns of the label table, for rates by group; `campaign`, which names attackers who act
            together, is none.
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

    def with_types_of(self, least: int) -> "Labels":
        """The labels without the names of types that fewer than `least` sequences have."""
        holders = Counter(self.types)
        return replace(self, types=[t if holders[t] >= least else None for t in self.types])

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
            joined.drop("sequence_id", "label", "type", "split_group", "campaign", strict=False),
        )


def read_label_table(path: Path, how: ReadOptions = AS_FOUND, max_bad_share: float = 0.05) -> pl.DataFrame:
    """Reads a label table: `sequence_id`, `label` (Int8, null where unknown), and the others, one row per sequence.

    Raises:
        LogError: a missing column, a label that is neither normal nor anomalous, two labels for one sequence, or more
            than `max_bad_share` of the labels without a sequence.
    """
    # the log's separator need not be that of its labels
    table = read_table(path, how=replace(how, separator=None), vectors=())
    for name in ("sequence_id", "label"):
        if name not in table.columns:
            raise LogError(f"{path}: column {name!r} is missing; present: {brief(', '.join(table.columns))}")
    label, wrong = read_classes(table["label"], path, how.positive)
    if wrong.any():
        raise not_plain(table["label"], wrong, path, how.positive)
    table = table.with_columns(names(table["sequence_id"]), label)
    nobodys = table.select(pl.col("sequence_id").is_null() & pl.col("label").is_not_null()).to_series()
    if count := int(nobodys.sum()):
        message = f"labels have no sequence_id, first at row {int(nobodys.arg_max() or 0) + first_row(path)}"
        _bear(message, count, int(table["label"].count()), max_bad_share, path)
    table = table.filter(pl.col("sequence_id").is_not_null())
    classes = table.group_by("sequence_id", maintain_order=True).agg(pl.col("label").drop_nulls().n_unique())
    clash = classes.filter(pl.col("label") > 1)
    if clash.height:
        raise LogError(
            f"{path}: sequence {quoted(clash['sequence_id'][0])} has both labels, and {clash.height - 1} more do; "
            "keep one"
        )
    first_known = table.filter(pl.col("label").is_not_null()).unique("sequence_id", keep="first", maintain_order=True)
    rest = table.join(first_known, on="sequence_id", how="anti", maintain_order="left")
    return pl.concat([first_known, rest.unique("sequence_id", keep="first", maintain_order=True)])


def _bear(what: str, count: int, total: int, most: float, path: Path) -> None:
    """Warns of bad labels; raises LogError if they are more than a share of all."""
    message = f"{path}: {count} of {total} {what}"
    if count > most * total:
        raise LogError(f"{message}. More than {most:.0%} is taken for the wrong file")
    logger.warning(message)


def read_labels(
    path: Path, log: Log, report: CleaningReport, max_bad_share: float = 0.05, how: ReadOptions = AS_FOUND
) -> Labels:
    """Reads a label table and aligns it with a log.

    Raises:
        LogError: as `read_label_table`; no label at all, no sequence in common, more than `max_bad_share` of the labels
            for sequences that the log lacks, or only one class left.
    """
    table = read_label_table(path, how, max_bad_share)
    labels = Labels.of(log.ids, table)
    table = table.filter(pl.col("label").is_not_null())
    if not table.height:
        raise LogError(f"{path}: no sequence has a label, all are blank; leave --labels out, or fill some in")
    known = labels.known
    orphans, unlabelled = table.height - int(known.sum()), int((~known).sum())
    report.labels = {"labels": table.height, "labels without events": orphans, "sequences without a label": unlabelled}
    if not known.any():
        raise LogError(
            f"{path}: none of its {table.height} sequences is in the log; it names "
            f"{quoted(table['sequence_id'][0])}, the log {quoted(log.ids[0])}"
        )
    if orphans:
        missing = table.join(pl.DataFrame({"sequence_id": log.ids}), on="sequence_id", how="anti")["sequence_id"][0]
        _bear(
            f"labels have no events, first for sequence {quoted(missing)}", orphans, table.height, max_bad_share, path
        )
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
