"""What a false-alarm rate must mean to the bundle's curves, so that it holds for recent genuine accounts.

The curves come from genuine accounts of the training log, and later ones may differ. A `Recalibration` says for each
rate at which rate of the curves no more than that share of recent genuine accounts is flagged, by people's verdicts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.model.lengths import CLASSES, class_of


@dataclass(frozen=True)
class Recalibration:
    """Rates as they are asked, and as the bundle's curves know them, by class of length.

    Attributes:
        asked: A rates, in ascending order; the last is 1.
        meant: for each of CLASSES, A rates of the bundle's curves, which never fall; at 0 nothing is flagged.
        accounts: for each of CLASSES, the genuine accounts with a verdict that they come from; 0 where they come from
            the bundle, or from all lengths together because that is stricter.
    """

    asked: tuple[float, ...]
    meant: tuple[tuple[float, ...], ...]
    accounts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.meant) == len(self.accounts) == len(CLASSES):
            raise ValueError(f"a recalibration needs rates and accounts for {len(CLASSES)} classes of length")
        for rates in (self.asked, *self.meant):
            if len(rates) != len(self.asked) or list(rates) != sorted(rates) or rates[-1:] != (1.0,) or rates[0] < 0:
                raise ValueError("a recalibration needs rates from 0 to 1 in ascending order, the last of them 1")

    def of_bundle(self, rate: float, length: int) -> float:
        """The rate of the bundle's curves that a rate stands for at a number of events."""
        place = bisect_right(self.asked, rate * (1 + 1e-9)) - 1
        return self.meant[class_of(length)][place] if place >= 0 else 0.0

    def of_recent(self, rate: float, length: int) -> float:
        """The smallest rate at which a sequence is flagged that the bundle's curves flag from `rate` on."""
        return self.asked[bisect_left(self.meant[class_of(length)], rate)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Recalibration":
        """Reads what `as_json` wrote; raises ValueError, KeyError or TypeError on anything else."""
        return cls(tuple(found["asked"]), tuple(map(tuple, found["meant"])), tuple(found["accounts"]))
