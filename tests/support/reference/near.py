"""Finds accounts that named nearly the same: sketches of what each named, and which accounts share parts of one."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys

BINS = 128  # of a sketch
MARKS = 32  # by which a sketch is found
POSTINGS, EARLIEST = 16, 4  # accounts that one mark of a sketch leads to: the latest, and some of the earliest
COMPARED = 24  # accounts that a sequence is compared with
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


def sketch(tokens: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """The smallest of the mixed tokens in each of BINS bins, EMPTY where there is none, and its place among the tokens.

    One-permutation hashing (Li, Owen and Zhang, "One permutation hashing", NIPS 2012). Two sets agree in a bin with the
    probability of their Jaccard overlap; a set that is much smaller than BINS is known nearly in full.
    """
    spread = mixed(tokens)
    order = np.argsort(spread, kind="stable")[::-1]  # the smallest of a bin is written last, its first place of several
    at = (spread[order] >> np.uint64(57)).astype(np.int64)
    found, source = np.full(BINS, EMPTY), np.zeros(BINS, dtype=np.int64)
    found[at], source[at] = spread[order], order
    return found, source


def mixed(keys: Keys) -> Keys:
    """Keys whose bits are spread evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = keys * _ODD
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


class Near:
    """Sketches of accounts, found by any two of their values that are neighbours in both; one would be too common."""

    def __init__(self) -> None:
        self.sketches: dict[int, Keys] = {}
        self.holders: dict[int, list[int]] = {}

    def put(self, account: int, of: Keys) -> None:
        """Keeps an account's sketch (BINS,) in the place of its old one."""
        old, new = self._kept(account), _marks(of)
        self._take_out(account, set(old) - set(new))
        self.sketches[account] = of
        for mark in set(new) - set(old):
            found = self.holders.setdefault(mark, [])
            found.append(account)
            if len(found) > POSTINGS:
                del found[EARLIEST]

    def drop(self, account: int) -> None:
        """Forgets an account."""
        self._take_out(account, self._kept(account))
        self.sketches.pop(account, None)

    def _kept(self, account: int) -> list[int]:
        return _marks(self.sketches[account]) if account in self.sketches else []

    def _take_out(self, account: int, marks: Iterable[int]) -> None:
        for mark in marks:
            found = self.holders.get(mark, [])
            if account in found:
                found.remove(account)
            if not found:
                self.holders.pop(mark, None)

    def nearest(self, account: int, of: Keys) -> list[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Other accounts, those that share most bins first; bool (BINS,) twice: where both agree, and where any is."""
        met = Counter(chain.from_iterable(self.holders.get(mark, ()) for mark in _marks(of)))
        met.pop(account, None)
        some = [other for other, _ in met.most_common(COMPARED)]
        if not some:
            return []
        others = np.stack([self.sketches[other] for other in some])
        same, there = (others == of) & (of != EMPTY), (others != EMPTY) | (of != EMPTY)
        order = np.argsort(-same.sum(axis=1) / there.sum(axis=1), kind="stable")
        return [(some[i], same[i], there[i]) for i in order.tolist()]


def _marks(of: Keys) -> list[int]:
    """Of each two values that are neighbours a mark; of many marks about MARKS, the same ones in every sketch."""
    there = of[of != EMPTY]
    found = mixed(there[:-1] * _ODD ^ there[1:]) if len(there) > 1 else there[:0]
    some: list[int] = found[found % np.uint64(max(len(found) // MARKS, 1)) == 0].tolist()
    return some


def steps(keys: Keys) -> Keys:
    """Uint64 (n - 1,), one for each two keys that follow one another."""
    return np.asarray(keys[:-1] * _ODD ^ keys[1:])
