"""What a model is fitted on: a log with its labels, read, cleaned, and split.

Every command that learns from a log reads it here, so that each sees the same sequences in the same parts.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.encoder import Encoder
from service.model.bundle import sha256
from training.config import FitConfig
from training.data.clean import CleaningReport, clean_events
from training.data.doubts import doubts, warnings_kept
from training.data.labels import Labels, read_labels
from training.data.log import Log, LogError
from training.data.read import AS_FOUND, ReadOptions, parquet_files
from training.data.split import Indices, Split, split
from training.data.to_score import events_to_score

logger = logging.getLogger(__name__)
WHOLE = FitConfig(test_share=0.0)  # for reading a log without a test part


@dataclass(frozen=True)
class Dataset:
    """A log ready for fitting.

    Attributes:
        log, labels: N sequences.
        split: positions of the sequences in the training part and in the test part.
        cleaning: what cleaning found.
        fingerprint: identifies the contents of the files that the log and its labels were read from.
        warnings: what was warned of while they were read.
    """

    log: Log
    labels: Labels
    split: Split
    cleaning: CleaningReport
    fingerprint: str
    warnings: Sequence[str] = ()

    @classmethod
    def read(
        cls,
        events: Path,
        labels: Path | None,
        config: FitConfig,
        columns: dict[str, str] | None = None,
        aside: Path | None = None,
        how: ReadOptions = AS_FOUND,
        encoder: Encoder | None = None,
    ) -> "Dataset":
        """Reads a log and its labels.

        Args:
            events: the log.
            labels: its label table; without one (None), all sequences are for training.
            config: how much may be bad, the share of the test part (0: no test part) and the seed.
            columns: renames the log's columns, {ours: theirs}.
            aside: file for bad rows.
            how: what the files do not tell by themselves.
            encoder: a bundle's, if the log is only to be scored: it then reads the columns.

        Raises:
            LogError: the log or the labels cannot be used.
        """
        with warnings_kept() as warnings:
            if encoder is not None:
                to_score = events_to_score(events, encoder, columns, aside, how=how)
                log, cleaning = to_score.log, to_score.report
            else:
                log, cleaning = clean_events(
                    events, columns, config.max_bad_share, aside, config.reading, how, told=config.told
                )
            truth = read_labels(labels, log, cleaning, config.max_bad_share, how) if labels else Labels.none(len(log))
            truth = truth.with_types_of(config.fewest)
            for doubt in doubts(log, truth) if encoder is None else ():
                logger.warning("%s: %s", events, doubt)
        if labels is None:
            parts = Split.undivided(np.arange(len(log)))
        elif not config.test_share:
            parts = Split.undivided(np.flatnonzero(truth.known))
        else:
            parts = split(log, truth, config.test_share, config.seed, config.private)
        return cls(log, truth, parts, cleaning, files_fingerprint(events, labels), tuple(warnings))

    @property
    def training(self) -> Indices:
        """Positions of all sequences that may be learned from: those outside the test part, labelled or not."""
        return np.setdiff1d(np.arange(len(self.log)), self.split.test)

    def with_judged(self, judged: Log, labels: Labels, tested: NDArray[np.bool_], least: int = 1) -> "Dataset":
        """The dataset with judged sequences added at its end.

        Args:
            judged, labels: M sequences, and the verdicts on them.
            tested: bool (M,), which of them go to the test part.
            least: fewest sequences of a type that is named.

        Raises:
            LogError: the two logs cannot be joined, see `joined`.
        """
        log, truth = joined(self.log, self.labels, judged, labels)
        test = np.concatenate((self.split.test, len(self.log) + np.flatnonzero(tested)))
        rest = np.setdiff1d(np.arange(len(log)), test)
        truth = truth.with_types_of(least)
        return replace(self, log=log, labels=truth, split=Split(rest[truth.known[rest]], test, self.split.how))


def files_fingerprint(events: Path, labels: Path | None) -> str:
    """Identifies a log and its labels by the contents of their files; a log may be a folder of Parquet files."""
    digests = [sha256(file) for file in (events, labels) if file is not None and not file.is_dir()]
    if events.is_dir():
        digests += [str(file.relative_to(events)) + sha256(file) for file in parquet_files(events)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def joined(old: Log, old_labels: Labels, new: Log, new_labels: Labels) -> tuple[Log, Labels]:
    """Both logs as one, the old one's sequences first.

    Raises:
        LogError: a column holds numbers in one and texts in the other, or both have a sequence of the same name.
    """
    if twice := set(old.ids) & set(new.ids):
        raise LogError(f"sequence {min(twice)!r} is in the old log and among the judged; give it another name")
    for column in set(old.events.columns) & set(new.events.columns):
        types = old.events.schema[column], new.events.schema[column]
        if types[0].is_numeric() != types[1].is_numeric() and pl.Null not in types:
            raise LogError(f"column {column!r} is {types[0]} in the old log and {types[1]} among the judged sequences")
    known = [c for c in new.events.columns if c in old.events.columns or c == "event_label"]
    events = pl.concat((old.events, new.events.select(known)), how="diagonal_relaxed")
    both = (old_labels, new_labels)
    labels = Labels(
        np.concatenate([b.known for b in both]),
        np.concatenate([b.label for b in both]),
        [t for b in both for t in b.types],
        [g for b in both for g in b.split_group],
        pl.DataFrame(),
    )
    return Log.of(events, old.reading, old.held), labels
