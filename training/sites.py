"""What several sites compute together, each on a log of its own: sums that nobody sees the parts of, and mean weights.

Every site runs the same fit in lockstep, and calls `totals` and `averaged` in the same order. A fit that is alone gets
back what it gives, so that there is one fit for both. `training.distributed.federation` is what joins sites.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TWICE = 2.0  # what a site counts at most: so many times the usual one


class Sites(Protocol):
    """The sites of a fit, as one of them sees them."""

    key: bytes  # that the sites know and nobody else does

    def total(self, part: Floats) -> Floats:
        """The sum of the parts of all sites; blocks until each has given its own."""

    def averaged(self, parts: Sequence[NDArray[Any]], weight: float) -> list[NDArray[Any]]:
        """The weighted mean of what all sites give, bounded so that none of them decides alone."""


_SITES: ContextVar[Sites | None] = ContextVar("sites", default=None)


@contextmanager
def joined(sites: Sites) -> Iterator[None]:
    """Within it, this thread's fit is one of several sites."""
    token = _SITES.set(sites)
    try:
        yield
    finally:
        _SITES.reset(token)


def federated() -> bool:
    """Whether this fit is one of several sites."""
    return _SITES.get() is not None


def total(part: NDArray[Any]) -> NDArray[Any]:
    """The sum over all sites of an array of numbers, with the dtype and shape of this site's."""
    return totals(part)[0]


def totals(*parts: NDArray[Any]) -> list[NDArray[Any]]:
    """The sums of several arrays, all over the same sites: what is divided by one another must not lack another one.

    A site may be gone from one message to the next.
    """
    if (sites := _SITES.get()) is None:
        return list(parts)
    found = sites.total(np.concatenate([np.ravel(part).astype(np.float64) for part in parts]))
    sums = np.split(found, np.cumsum([np.size(part) for part in parts])[:-1])
    return [
        (sum_ if part.dtype.kind == "f" else np.rint(sum_)).astype(part.dtype).reshape(part.shape)
        for sum_, part in zip(sums, parts, strict=True)
    ]


def averaged(parts: Sequence[NDArray[Any]], weight: float) -> list[NDArray[Any]]:
    """The mean over all sites of some arrays, by how much each site counts."""
    sites = _SITES.get()
    return list(parts) if sites is None else sites.averaged(parts, weight)


def voice(accounts: int) -> float:
    """How much each of this site's accounts counts in what is learned from labels, in (0, 1]; alone, it is 1.

    The site counts for no more than twice what the others do on average, as in the mean of networks. Only the site
    itself can see to that: in a masked sum, nobody else sees what it gives.
    """
    all_, sites = total(np.array([accounts, 1.0])).tolist()
    return min(1.0, TWICE * (all_ - accounts) / ((sites - 1) * accounts)) if sites > 1 else 1.0


def bucket_of(column: str, value: str, buckets: int) -> int:
    """The bucket of a value, the same at all sites; who does not know their key cannot tell which value it was."""
    sites = _SITES.get()
    assert sites is not None
    digest = hmac.digest(sites.key, f"{column}\0{value}".encode(), hashlib.sha256)
    return int.from_bytes(digest[:8], "little") % buckets
