"""What is read off a sequence's values without the network, and where it is kept: `statistics.npz` of the bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded
from service.encoding.usage import Usage
from service.encoding.values import Floats
from service.model.calibration import beside
from service.model.guilt_by_association import Company
from service.model.linear import Linear
from service.model.novelty import Profile


@dataclass(frozen=True)
class Reading:
    """What a surface says of N sequences.

    Attributes:
        logits: float64 (N, 1 + K), the linear part's, of the label and of each type.
        company: float64 (N,), see `service.model.guilt_by_association`.
        novelty: float64 (N,), the profile's.
    """

    logits: Floats
    company: Floats
    novelty: Floats

    @property
    def channels(self) -> Floats:
        """Float64 (N, 3), as the calibration weighs them."""
        return np.stack(beside(self.logits[:, 0], self.company, self.novelty), axis=1)

    def take(self, at: NDArray[np.integer]) -> "Reading":
        """Those at the given positions."""
        return Reading(self.logits[at], self.company[at], self.novelty[at])


@dataclass(frozen=True)
class Surface:
    """Profile, linear part and company of one model."""

    profile: Profile
    linear: Linear
    company: Company

    def read(self, sequences: Sequence[Encoded]) -> Reading:
        usage = Usage.of(sequences)
        description = self.profile.describe(usage)
        return Reading(
            self.linear.logits(usage, description), self.company.read(usage), self.profile.novelty(description)
        )

    def save(self, path: Path) -> None:
        p, linear = self.profile, self.linear
        np.savez(
            path,
            fields=np.array(p.fields),
            field=p.field,
            surprise=p.surprise.astype(np.float32),
            mean=p.mean,
            scale=p.scale,
            whitening=p.whitening,
            idf=linear.idf.astype(np.float32),
            weights=linear.weights.astype(np.float32),
            dense_weights=linear.dense_weights,
            bias=linear.bias,
            suspicion=self.company.suspicion.astype(np.float32),
            weight=self.company.weight.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "Surface":
        """Reads what `save` wrote; raises ValueError or KeyError on anything else."""
        with np.load(path, allow_pickle=False) as kept:
            a = {name: kept[name].astype(np.float64) if kept[name].dtype == np.float32 else kept[name] for name in kept}
        profile = Profile(
            tuple(a.pop("fields").tolist()), *(a.pop(n) for n in ("field", "surprise", "mean", "scale", "whitening"))
        )
        company = Company(a.pop("suspicion"), a.pop("weight"))
        return cls(profile, Linear(**a), company)
