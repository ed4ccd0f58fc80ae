"""Measures how far the values of each field in recent traffic have moved from those in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import Floats

BINS = 20  # bins of a field: one for each of its most frequent values, and one for all others
OTHERS = "others"
SCORE_BINS = 20  # equal bins over 0..1, in which a bundle keeps its validation scores


@dataclass(frozen=True)
class FieldValues:
    """The most frequent values of each field, and how often they occur in the training sequences.

    Attributes:
        names: names of the F fields.
        bin_of: int64 (rows,), the bin of each row of the encoder's table, numbered field by field; F * BINS for rows
            that are not a value of a field.
        expected: float64 (F, BINS), training sequences; each counts 1 in a field, divided among its events.
        labels: the values of each field's bins in words, as many as the field has.
    """

    names: list[str]
    bin_of: NDArray[np.int64]
    expected: Floats
    labels: list[list[str]]

    @classmethod
    def learn(cls, encoder: Encoder, sequences: Sequence[Encoded]) -> dict[str, Any]:
        """Counts for a bundle's manifest, learned from the training sequences; `of` reads them."""
        counts = np.zeros(encoder.rows)
        for sequence in sequences:
            counts += np.bincount(sequence.rows.ravel(), minlength=encoder.rows) / sequence.length
        return cls.of_counts(encoder, counts)

    @classmethod
    def of_counts(cls, encoder: Encoder, counts: Floats) -> dict[str, Any]:
        """The same from counts of the training sequences by the rows that they use, float64 (rows,)."""
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
        """Reads what `learn` returned; fields that are missing there are not watched."""
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
        """Float64 (F, BINS): how many sequences fall into each bin; each sequence counts 1 in a field."""
        rows = np.concatenate([s.rows for s in sequences])
        weight = np.repeat([1 / s.length for s in sequences], [s.rows.size for s in sequences])
        cells = len(self.names) * BINS
        counts = np.bincount(self.bin_of[rows.ravel()], weight, cells + 1)[:cells].astype(np.float64)
        return counts.reshape(-1, BINS)

    def stability(self, found: Floats, least: float) -> list[float]:
        """The stability index of each field for recent counts (F, BINS); 0 below `least` sequences, as it is noise."""
        pairs = zip(self.expected, found, strict=True)
        return [population_stability(e, f) if f.sum() >= least else 0.0 for e, f in pairs]

    def moved(self, found: Floats, least: float) -> list[dict[str, Any]]:
        """Each field with its stability index, and its values' shares in training and in recent counts (F, BINS)."""
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

    It is 0 if they agree; above 0.25 a shift is usually called major (Siddiqi, "Credit risk scorecards", 2006). Half an
    observation is added to each bin, so that an empty bin does not make the index infinite.
    """
    e, f = expected + 0.5, found + 0.5
    e, f = e / e.sum(), f / f.sum()
    return float(((f - e) * np.log(f / e)).sum())
