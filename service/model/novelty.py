"""How far a sequence lies from normal behaviour, judged by its values in each field; needs no labels.

For each field a sequence has two numbers. One is its mean surprise: -ln of how common its values are among normal
sequences. The other is the entropy of its own values. The steps of a crawler through the catalogue are rare, the items
of a click farm are few, and a shilling profile has items that people seldom visit. The novelty is the squared
Mahalanobis distance of these numbers from those of normal sequences, and how far the account's latest events stray from
its own past, where that is long enough to tell.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from cachetools import LRUCache, cachedmethod
from numpy.typing import NDArray

from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.lengths import bins
from service.model.sums import distance, measured, standardised

LIMIT = 8.0  # standard deviations; larger values are cut to this, since they say no more
MOST_KEPT = 32 << 20  # bytes of the inverse roots that are kept, since a caller can ask for any number of them


def measure(usage: Usage, field: NDArray[np.int16], surprise: Floats, fields: int) -> Floats:
    """Mean surprise in nats and entropy of each field, float64 (N, 2 F), NaN where a sequence has no value in it.

    Args:
        usage: of N sequences.
        field: int16 (rows,), the field of each table row, -1 for rows that describe no event.
        surprise: float64 (rows,), -ln of the row's share among the rows of its field in normal sequences.
        fields: F.
    """
    return measured(usage.owner, usage.rows, usage.counts, usage.length, field, surprise, fields)


@dataclass(frozen=True)
class Novelty:
    """What normal sequences look like, field by field and by length (B bins of `lengths`).

    A mean over few events scatters more than one over many, and few events cannot be varied. So a sequence is measured
    against normal sequences of like length.

    Attributes:
        fields: the fields' names, F of them.
        field: int16 (rows,), the field of each table row, -1 for rows that describe no event.
        surprise: float64 (rows,), see `measure`.
        mean, scale: float64 (B, 2 F + S), mean and standard deviation of the measures of normal sequences.
        covariance: float64 (B, 2 F, 2 F), of their standardised measures, those of habit apart.
    """

    fields: tuple[str, ...]
    field: NDArray[np.int16]
    surprise: Floats
    mean: Floats
    scale: Floats
    covariance: Floats

    def standardise(self, measures: Floats, lengths: NDArray[np.integer]) -> Floats:
        """Standard deviations from normal, (N, 2 F + S), within LIMIT; NaN for a field without values."""
        return standardised(measures, self.mean, self.scale, bins(lengths), LIMIT)

    def describe(self, usage: Usage, habit: Floats, lengths: NDArray[np.integer]) -> Floats:
        """The sequences' standardised measures, float64 (N, 2 F + S); `habit`, float64 (N, S), as in `Encoded`."""
        of_fields = measure(usage, self.field, self.surprise, len(self.fields))
        return self.standardise(np.concatenate((of_fields, habit), axis=1), lengths)

    def habit(self, description: Floats) -> Floats:
        """The measures of habit (..., S) in a description."""
        return description[..., 2 * len(self.fields) :]

    def distance(self, description: Floats, lengths: NDArray[np.integer]) -> Floats:
        """Squared distance from normal over the measures that are there, divided by their number, (N,).

        It is about 1 for normal sequences, and 1 if no field has a value. What strays most from its own past adds to it
        as one measure more.
        """
        there = ~np.isnan(description[:, : 2 * len(self.fields)])
        found = np.empty(len(description))
        for at, (bin_, used) in enumerate(zip(bins(lengths).tolist(), there, strict=True)):
            root = self._whitening(bin_, used.tobytes())
            found[at] = distance(description[at], used.view(np.uint8), root)
        return found

    def parts(self, description: Floats, length: int) -> Floats:
        """Float64 (2 F,): what each measure of fields adds to the squared distance of one sequence.

        A part is negative where a measure makes the others more likely. Those of habit are not among them.

        Args:
            description: float64 (2 F + S,), its standardised measures.
        """
        of_fields = description[: 2 * len(self.fields)]
        there = ~np.isnan(of_fields)
        found = np.zeros(len(of_fields))
        if there.any():
            root = self._whitening(int(bins(np.array([length]))[0]), there.tobytes())
            found[there] = of_fields[there] * (root @ (of_fields[there] @ root)) / there.sum()
        return found

    @cachedmethod(lambda self: self._cache)
    def _whitening(self, bin_: int, used: bytes) -> Floats:
        """Inverse square root of the covariance of the measures that are used."""
        at = np.flatnonzero(np.frombuffer(used, dtype=bool))
        values, vectors = np.linalg.eigh(self.covariance[bin_][np.ix_(at, at)])
        return cast(Floats, vectors / np.sqrt(np.maximum(values, 1e-6)))

    @cached_property
    def _cache(self) -> LRUCache[Hashable, Floats]:
        return LRUCache(MOST_KEPT, getsizeof=lambda root: root.nbytes)
