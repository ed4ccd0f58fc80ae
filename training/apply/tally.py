"""What a scoring run did, as counts that add up over the parts of a log."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.encoding.encoder import Encoder
from training.data.columns import without_markers
from training.data.log import Log

COUNTS = ("decisions", "unscored", "unreadable", "missing")
ORDER = ("allow", "review", "block")
MORE_MISSING = 0.05  # how far above training's a column's share of missing values may lie, and up to twice it
MOST_UNSCORED = 0.05  # share of sequences or rows; more is a fault of the log that a caller must hear of


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        rows, aside: rows read, and those set aside as bad.
        decisions: sequences scored, by decision.
        unscored: sequences not scored, by reason.
        unreadable: values that are no number where the model reads numbers, by column.
        missing: empty values and those that stand for one, by column that the model reads.
    """

    rows: int = 0
    aside: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Tally":
        counts = {name: Counter(content[name]) for name in COUNTS}
        return cls(content["rows"], content["aside"], **counts)

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "aside": self.aside, **{name: dict(getattr(self, name)) for name in COUNTS}}

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> "Tally":
        total = cls()
        for one in tallies:
            total.rows += one.rows
            total.aside += one.aside
            for name in COUNTS:
                getattr(total, name).update(getattr(one, name))
        return total

    @property
    def scored(self) -> int:
        return self.decisions.total()

    @property
    def sequences(self) -> int:
        return self.scored + self.unscored.total()

    @property
    def exit_code(self) -> int:
        """2 where nothing could be scored, 1 where too much could not, else 0."""
        if not self.scored:
            return 2
        lost = self.unscored.total() > MOST_UNSCORED * self.sequences or self.aside > MOST_UNSCORED * self.rows
        return int(lost)

    def said(self, out: Path, usual: Mapping[str, float]) -> str:
        """The counts in words, with the place of the output.

        Args:
            usual: by column, the share of values that were missing in training; only what is far above it is named.
        """
        of_each = ", ".join(f"{self.decisions[decision]:,} {decision}" for decision in ORDER)
        parts = [f"{self.sequences:,} sequences read, {self.scored:,} scored: {of_each}"]
        if self.unscored:
            parts.append(f"{self.unscored.total():,} not scored: {_listed(self.unscored)}")
        if self.aside:
            parts.append(f"{self.aside:,} of {self.rows:,} rows set aside as bad")
        if self.unreadable:
            parts.append(f"values that are no number, taken for missing: {_listed(self.unreadable)}")
        if lacking := self._more_missing(usual):
            parts.append(f"far more values missing than in training: {', '.join(lacking)}")
        return f"{'; '.join(parts)}; see {out}"

    def _more_missing(self, usual: Mapping[str, float]) -> list[str]:
        """The columns that lack far more values than in training, each with both shares."""
        found = []
        for name, count in self.missing.most_common():
            share, before = count / max(self.rows - self.aside, 1), usual.get(name, 0.0)
            if share > max(2 * before, before + MORE_MISSING):
                found.append(f"{name} {share:.0%} in place of {before:.0%}")
        return found


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def unreadable_values(encoder: Encoder, log: Log) -> Counter[str]:
    """How many values of a log are no number or vector where the encoder reads such, by column."""
    columns = [name for name in sorted(encoder.number_columns) if name in log.events.columns]
    counts = {name: len(encoder.reading.numbers(name, log.events[name].to_list())[1]) for name in columns}
    for name in encoder.reading.codebooks.keys() & log.events.columns:
        counts[name] = len(encoder.reading.codewords(name, log.whole[0][name])[2])
    return Counter({name: count for name, count in counts.items() if count})


def missing_values(encoder: Encoder, log: Log) -> Counter[str]:
    """How many values of a log are missing where the encoder reads them, by column that the log has."""
    columns = [name for name in encoder.read if name in log.events.columns]
    counts = {name: without_markers(log.events[name], encoder.reading).null_count() for name in columns}
    return Counter({name: count for name, count in counts.items() if count})
