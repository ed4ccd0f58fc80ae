"""How far the values of each field have moved from those of training: what the traffic is like, beside its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import Floats

BINS = 20  # of a field: its values that most sequences hold, and one for all others
OTHERS = "others"
SCORE_BINS = 20  # equal bins over 0..1, in which a bundle keeps the scores of its validation


@dataclass(frozen=True)
class FieldValues:
    """The fields' most frequent values, and how often training's sequences hold them.

    Attributes:
        names: the fields', F of them.
        bin_of: int64 (rows,), the bin, field by field, of each row of the encoder's table; the last, F * BINS, of rows
            that are no value of a field.
        expected: float64 (F, BINS), sequences of training; each counts 1 in a field, shared out among its events.
        labels: the bins' values in words, as many as the field has.
    """

    names: list[str]
    bin_of: NDArray[np.int64]
    expected: Floats
    labels: list[list[str]]

    @classmethod
    def learn(cls, encoder: Encoder, sequences: Sequence[Encoded]) -> dict[str, Any]:
        """What a bundle's manifest keeps of the sequences; `of` reads it."""
        counts = np.zeros(encoder.rows)
        for sequence in sequences:
            counts += np.bincount(sequence.rows.ravel(), minlength=encoder.rows) / sequence.length
        found = {}
        for f, _, start, end in encoder.of("event"):
            if f.deep:  # a pair moves with its values
                of_field = counts[start:end]
                rows = np.argsort(-of_field, kind="stable")[: BINS - 1]
                rows = np.sort(rows[of_field[rows] > 0])
                found[f.name] = {
                    "rows": rows.tolist(),
                    "sequences": of_field[rows].round(3).tolist(),
                    "others": round(float(of_field.sum() - of_field[rows].sum()), 3),
                }
        return found

    @classmethod
    def of(cls, encoder: Encoder, kept: Mapping[str, Any]) -> "FieldValues":
        """From what `learn` gave; fields that it lacks are not watched."""
        names: list[str] = []
        labels: list[list[str]] = []
        bin_of = np.full(encoder.rows, -1, dtype=np.int64)
        expected = np.zeros((len(kept), BINS))
        for f, _, start, end in encoder.of("event"):
            if f.name in kept:
                rows, first = kept[f.name]["rows"], len(names) * BINS
                bin_of[start:end] = first + BINS - 1
                bin_of[[start + row for row in rows]] = first + np.arange(len(rows))
                expected[len(names), : len(rows)] = kept[f.name]["sequences"]
                expected[len(names), BINS - 1] = kept[f.name]["others"]
                labels.append([f.label(row) for row in rows])
                names.append(f.name)
        bin_of[bin_of < 0] = len(kept) * BINS
        return cls(names, bin_of, expected, labels)

    def count(self, sequences: Sequence[Encoded]) -> Floats:
        """Float64 (F, BINS): the sequences by their values, each counted once in a field."""
        rows = np.concatenate([s.rows for s in sequences])
        weight = np.repeat([1 / s.length for s in sequences], [s.rows.size for s in sequences])
        cells = len(self.names) * BINS
        counts = np.bincount(self.bin_of[rows.ravel()], weight, cells + 1)[:cells].astype(np.float64)
        return counts.reshape(-1, BINS)

    def stability(self, found: Floats, least: float) -> list[float]:
        """The index of each field for recent counts (F, BINS); 0 for fewer than `least` sequences, which are noise."""
        pairs = zip(self.expected, found, strict=True)
        return [population_stability(e, f) if f.sum() >= least else 0.0 for e, f in pairs]

    def moved(self, found: Floats, least: float) -> list[dict[str, Any]]:
        """Each field with its index, and its values' shares in training and in recent counts (F, BINS)."""
        rows = []
        of_fields = zip(self.names, self.labels, self.expected, found, self.stability(found, least), strict=True)
        for name, labels, expected, now, psi in of_fields:
            e, n = expected / max(expected.sum(), 1e-9), now / max(now.sum(), 1e-9)
            shown = [*range(len(labels)), BINS - 1]
            values = [
                {"value": label, "expected": round(float(e[k]), 4), "now": round(float(n[k]), 4)}
                for label, k in zip([*labels, OTHERS], shown, strict=True)
            ]
            rows.append({"field": name, "psi": round(psi, 4), "values": values})
        return rows


def population_stability(expected: Floats, found: Floats) -> float:
    """Population stability index of two histograms over the same bins: sum of (f - e) ln(f / e).

    0 where they agree; past 0.25 a shift is usually called major (Siddiqi, "Credit risk scorecards", 2006). Half an
    observation is added to each bin, so that an empty one does not make it infinite.
    """
    e, f = expected + 0.5, found + 0.5
    e, f = e / e.sum(), f / f.sum()
    return float(((f - e) * np.log(f / e)).sum())
