"""The parts of a model that read a sequence's values without the network; a bundle keeps them in `statistics.npz`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.calibration import beside
from service.model.guilt_by_association import GuiltByAssociation
from service.model.linear import Linear
from service.model.novelty import Novelty
from service.model.shape import Shape
from service.model.straying import Straying


@dataclass(frozen=True)
class Reading:
    """What the tabular parts say of N sequences.

    Attributes:
        logits: float64 (N, 1 + K), the linear part's logits for the label and for each type, the latter with what the
            shape adds.
        association: float64 (N,), see `guilt_by_association`.
        novelty: float64 (N,), see `novelty`.
        straying: float64 (N,), see `straying`.
    """

    logits: Floats
    association: Floats
    novelty: Floats
    straying: Floats

    @property
    def channels(self) -> Floats:
        """Float64 (N, 4): the channels that the calibration weighs."""
        return np.stack(beside(self.logits[:, 0], self.association, self.novelty, self.straying), axis=1)

    def take(self, at: NDArray[np.integer]) -> "Reading":
        """The readings at the given positions."""
        return Reading(self.logits[at], self.association[at], self.novelty[at], self.straying[at])

    @classmethod
    def joined(cls, parts: Sequence["Reading"]) -> "Reading":
        """The readings of all parts, one part after another."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Tabular:
    """Novelty, linear part, guilt by association, shape and straying of one model."""

    novelty: Novelty
    linear: Linear
    association: GuiltByAssociation
    shape: Shape
    straying: Straying

    def read(self, sequences: Sequence[Encoded]) -> Reading:
        usage, lengths = Usage.of(sequences), np.array([e.length for e in sequences])
        description = self.novelty.describe(usage, np.stack([e.habit for e in sequences]), lengths)
        logits = self.linear.logits(usage, description)
        logits[:, 1:] += self.shape.logits(usage)
        return Reading(
            logits,
            self.association.read(usage),
            self.novelty.distance(description, lengths),
            self.straying.logits(self.novelty.habit(description)),
        )

    def save(self, path: Path) -> None:
        p, linear, shape = self.novelty, self.linear, self.shape
        np.savez(
            path,
            fields=np.array(p.fields),
            field=p.field,
            surprise=p.surprise.astype(np.float32),
            mean=p.mean,
            scale=p.scale,
            covariance=p.covariance,
            idf=linear.idf.astype(np.float32),
            weights=linear.weights.astype(np.float32),
            dense_weights=linear.dense_weights,
            bias=linear.bias,
            suspicion=self.association.suspicion.astype(np.float32),
            weight=self.association.weight.astype(np.float32),
            straying=self.straying.weights,
            **{f"shape_{f.name}": getattr(shape, f.name) for f in fields(shape)},
        )

    @classmethod
    def load(cls, path: Path) -> "Tabular":
        """Reads what `save` wrote; raises ValueError or KeyError on anything else."""
        with np.load(path, allow_pickle=False) as kept:
            a = {name: kept[name].astype(np.float64) if kept[name].dtype == np.float32 else kept[name] for name in kept}
        novelty = Novelty(
            tuple(a.pop("fields").tolist()), *(a.pop(n) for n in ("field", "surprise", "mean", "scale", "covariance"))
        )
        association = GuiltByAssociation(a.pop("suspicion"), a.pop("weight"))
        shape = Shape(**{f.name: a.pop(f"shape_{f.name}") for f in fields(Shape)})
        straying = Straying(a.pop("straying"))
        return cls(novelty, Linear(**a), association, shape, straying)
