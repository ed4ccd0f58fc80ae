"""The bins of a number, learned from a log, or together with other sites."""

import numpy as np
import polars as pl

from service.encoding.fields import Bins, Field
from training.data.log import Log
from training.fit import agreed
from training.sites import federated

SEVERAL = 2  # sequences that hold what is learned by default; what one alone holds tells of no other
BINS = 32  # bins of a number that has more distinct values than this
NEARLY_ALL = 0.9  # share of a number's events that hold a common value, from which its bins are made for these


def number_bins(name: str, log: Log, old: Field | None, least: int) -> Bins:
    """The bins of a column; `old` and `least` as for `training.fit.encoder.fit_encoder`."""
    if isinstance(old, Bins):
        return old
    if federated():
        return agreed.bins(name, log.events[name], BINS)
    return _shared_bins(name, log, least) if least > SEVERAL else _bins(name, log.events[name])


def _shared_bins(name: str, log: Log, least: int) -> Bins:
    """Bins whose edges are each the mean of what several sequences hold in the middle (microaggregation).

    After Domingo-Ferrer and Mateo-Sanz, "Practical data-oriented microaggregation for statistical disclosure control",
    IEEE TKDE 2002. Where nearly all values are among a few common ones, the edges lie between these.
    """
    told = log.events.select("sequence_id", value=name).drop_nulls().sort("value")
    holders = told.unique().group_by("value").len("holders").sort("value")
    common = holders.filter(pl.col("holders") >= least)["value"].to_numpy()
    if len(common) <= BINS and told["value"].is_in(common).sum() > NEARLY_ALL * told.height:
        exact = common.tolist() if len(common) == holders.height else []
        return Bins(name, ((common[1:] + common[:-1]) / 2).tolist(), exact)
    rows, edges = told.height, []
    for k in range(1, BINS):  # around each quantile, as much as lies between two of them
        low, high = (round((k + side) * rows / BINS) for side in (-0.5, 0.5))
        # each account counts once, or one with many events would be told nearly as it is
        of_each = told[low:high].group_by("sequence_id").agg(pl.col("value").median())["value"].sort().to_numpy()
        count = max(least, len(of_each) // 2)
        first = (len(of_each) - count) // 2
        if first >= 0:
            edges.append(float((of_each[first : first + count] / count).sum()))
    # such a mean can be what somebody alone holds, by chance
    return Bins(name, np.setdiff1d(edges, holders.filter(pl.col("holders") < least)["value"]).tolist())


def _bins(name: str, column: pl.Series) -> Bins:
    values = column.drop_nulls().to_numpy()
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        edges, exact = (distinct[1:] + distinct[:-1]) / 2, distinct
    else:
        edges, exact = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])), np.array([])
    return Bins(name, edges.tolist(), exact.tolist())
