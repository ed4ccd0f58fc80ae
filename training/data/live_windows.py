"""Cuts a log into live windows as the service sees them: the latest events of each sequence at random moments.

To a model fitted on whole histories, the first events of a new user look like nothing it has seen, and so do the last
few events of an old one. So a model that scores windows should be fitted on windows.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from training.data.labels import Labels
from training.data.log import Log

DRAWS = 3  # windows of each sequence


def at_moments(log: Log, labels: Labels, window: int, seed: int) -> tuple[Log, Labels]:
    """Windows of at most `window` events; each ends at an event of its sequence that is drawn at random.

    The first window of each sequence reaches back as far as possible. The others have a random size, like the window of
    somebody who was silent until their old window was forgotten.

    If all events of a window are labelled, the window is anomalous if one of them is; otherwise if its sequence is. The
    windows of one sequence stay in one part of a split. Sequences with times are first sorted by time.
    """
    rng = np.random.default_rng(seed)
    rank = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    ts = log.events["ts"].to_numpy().astype(np.float64)
    untimed = np.logical_or.reduceat(np.isnan(ts), log.offsets[:-1])[rank]
    events = log.events[np.lexsort((np.where(untimed, 0.0, ts), rank))]
    lengths = np.repeat(np.diff(log.offsets), DRAWS)
    ends = 1 + (rng.random(len(lengths)) * lengths).astype(np.int64)
    sizes = np.minimum(ends, window)
    shorter = np.arange(len(sizes)) % DRAWS > 0
    sizes[shorter] = 1 + (rng.random(shorter.sum()) * sizes[shorter]).astype(np.int64)
    starts = ends - sizes
    first = np.repeat(log.offsets[:-1], DRAWS) + starts
    rows = np.repeat(first - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
    of = np.repeat(np.arange(len(log)), DRAWS)
    names = np.array([f"{log.ids[i]}@{end}-{k % DRAWS}" for k, (i, end) in enumerate(zip(of, ends, strict=True))])
    cut = events[rows].with_columns(pl.Series("sequence_id", np.repeat(names, sizes)))
    found = labels.subset(of)
    groups: list[str | None] = [
        g if g is not None else f"windows of {log.ids[i]}" for i, g in zip(of, found.split_group, strict=True)
    ]
    label = found.label
    if "event_label" in cut.columns:
        said = cut["event_label"].cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
        at = np.cumsum(sizes) - sizes
        told = ~np.logical_or.reduceat(np.isnan(said), at)
        label = np.where(told & (np.fmax.reduceat(said, at) < 1), 0, label).astype(np.int8)
    types = [t if y else None for t, y in zip(found.types, label, strict=True)]
    return Log.of(cut, log.reading), replace(found, label=label, types=types, split_group=groups)
