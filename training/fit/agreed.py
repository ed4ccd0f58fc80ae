"""What the encoders of several sites share: rows that mean the same everywhere, though no site tells its values.

A value is known by its bucket, a hash under a key of the sites. How many accounts hold the values of a bucket is summed
over the sites in secret. A row stands for a bucket that enough accounts hold. A site that holds nothing in it has a row
that nothing uses, and learns only that somebody does. Of two values in a bucket, a site reads what more accounts hold.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from service.encoding.fields import Bins
from service.encoding.values import Floats, catalogue_order
from service.encoding.vocabulary import Vocabulary
from training.data.log import LogError
from training.sites import bucket_of, total, totals

BUCKETS = 1 << 17  # of the values of one column
STEPS, APART = 40, 0.3  # in which rows find their order; how far apart they are kept, as a share of what is usual
OF_OTHERS = "\0{}"  # the name of a row whose value only other sites hold; no value of a log is written so
MOST_CELLS = 1 << 20  # of a table of pairs
GRID = 512  # steps in which a number doubles, of the finest histogram: a step is 0.14 %
SMALLEST, LARGEST = -20, 40  # powers of two that the histogram tells apart


def same_kinds(kinds: Mapping[str, str]) -> None:
    """Raises LogError unless all sites have the same columns, read as the same kinds."""
    number = bucket_of("columns", str(sorted(kinds.items())), 1 << 16)
    sites, first, second = total(np.array([1, number, number**2])).tolist()
    if sites * second != first**2:
        shown = ", ".join(f"{name}={kind}" for name, kind in sorted(kinds.items()))
        raise LogError(
            f"the sites have other columns, or read them otherwise; here they are {shown}: tell all by --kinds"
        )


def vocabulary(name: str, holders: Mapping[str, int], identifier: bool, least: int, most: int) -> Vocabulary:
    """The vocabulary of a column, of as many rows at all sites.

    Args:
        holders: how many of this site's accounts hold each value.
        least: fewest accounts of all sites that hold what a row stands for.
        most: rows at most.
    """
    own: dict[int, str] = {}
    counts = np.zeros(BUCKETS, dtype=np.int64)
    for value in sorted(holders, key=lambda v: (holders[v], v)):
        bucket = bucket_of(name, value, BUCKETS)
        counts[bucket] += holders[value]
        own[bucket] = value
    counts = total(counts)
    kept = np.argsort(-counts, kind="stable")[:most]
    kept = np.sort(kept[counts[kept] >= least])
    if identifier:
        kept = kept[catalogue([own.get(bucket) for bucket in kept.tolist()])]
    return Vocabulary(name, [own.get(bucket, OF_OTHERS.format(bucket)) for bucket in kept.tolist()], identifier)


def catalogue(values: Sequence[str | None]) -> NDArray[np.int64]:
    """An order of rows (V,) in which each site has its own values, None for those it does not know, as they are sorted.

    Each row has a place, first the mean over the sites that know it of where it is in their order. Then each site says
    by how much its own must move to be in order, and each moves by the mean of that: projections on convex sets,
    averaged, come to a point in all of them (Auslender, "Optimisation: méthodes numériques", 1976; each projection is
    an isotonic regression). What is told of a value is its place among the others.
    """
    in_order = sorted((catalogue_order(value), at) for at, value in enumerate(values) if value is not None)
    own = np.array([at for _, at in in_order], dtype=np.int64)
    known, place, goal = np.zeros(len(values)), np.zeros(len(values)), np.zeros(len(values))
    known[own], goal[own] = 1.0, (np.arange(len(own)) + 0.5) / max(len(own), 1)
    apart = APART * np.arange(len(own)) / max(len(values), 1)  # or two values could end at one place
    for _ in range(STEPS):
        moves, sites = totals(goal - place * known, known)
        place = place + moves / np.maximum(sites, 1.0)
        goal[own] = isotonic_regression(place[own] - apart) + apart if len(own) else 0.0
    return np.argsort(place, kind="stable")


def of_values(vocabulary: Vocabulary, own: Mapping[str, float]) -> Floats:
    """Float64 (V,): the sum over all sites of a number of each value."""
    return total(of_own(vocabulary, own))


def of_own(vocabulary: Vocabulary, own: Mapping[str, float]) -> Floats:
    """Float64 (V,): a number of each value, 0 for those that this site does not know."""
    return np.array([own.get(value, 0.0) for value in vocabulary.values], dtype=np.float64)


def bins(name: str, column: pl.Series, count: int) -> Bins:
    """Bins of a number with about as many values of all sites in each, by a histogram with cells of like ratio."""
    values = column.drop_nulls().to_numpy().astype(np.float64)
    steps = (LARGEST - SMALLEST) * GRID
    with np.errstate(divide="ignore"):
        size = np.clip((np.log2(np.abs(values)) - SMALLEST) * GRID, 0, steps - 1).astype(np.int64)
    cell = np.where(values < 0, steps - 1 - size, np.where(values == 0, steps, steps + 1 + size))
    counts = total(np.bincount(cell, minlength=2 * steps + 1)).astype(np.float64)
    reached = np.cumsum(counts) / max(counts.sum(), 1)
    last = np.unique(np.searchsorted(reached, np.linspace(0, 1, count + 1)[1:-1]))
    last = last[last < np.flatnonzero(counts)[-1]] if counts.any() else last[:0]  # an edge above all parts nothing
    above = last + 1  # the lower edge of the cell behind it
    power = np.where(above > steps, (above - steps - 1) / GRID, (steps - above) / GRID) + SMALLEST
    edges = np.where(above > steps, 2.0**power, -(2.0**power))
    return Bins(name, np.unique(np.where(above == steps, -(2.0**SMALLEST), edges)).tolist(), [])


def pairs(once: NDArray[np.int64], left: int, right: int, least: int, most: int) -> list[list[int]]:
    """The pairs of rows that enough accounts of all sites hold, sorted; none where there are too many to count.

    Args:
        once: int64 keys of pairs, `left id << 32 | right id`, each once for each of this site's accounts.
        left, right: how many ids the two fields have.
    """
    if left * right > MOST_CELLS:
        return []
    counts = total(np.bincount((once >> 32) * right + (once & 0xFFFFFFFF), minlength=left * right))
    kept = np.argsort(-counts, kind="stable")[:most]
    kept = np.sort(kept[counts[kept] >= least])
    return [[cell // right, cell % right] for cell in kept.tolist()]
