"""Shares with their intervals."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """A share with its 95 % interval; NaN if nothing is known of it."""

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan


def wilson(hits: float, of: float) -> Bounds:
    """A binomial share with Wilson's score interval (Wilson, 1927)."""
    if of <= 0:
        return Bounds()
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return Bounds(p, max((middle - half) / (1 + z * z / of), 0.0), min((middle + half) / (1 + z * z / of), 1.0))
