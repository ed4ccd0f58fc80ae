"""What an attacker knows of a log, how much is injected, and what one account of an attack consists of.

`attacks` and `lookalikes` make accounts of it, kind by kind, and `injection` puts them into the log.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from service.encoding.values import catalogue_order
from training.data.log import Log, LogError

Rows = NDArray[np.int64]
HOUR = 3600.0
LEAST = 5  # events of a history that is worth copying
FACTORS = 16  # of users' tastes


@dataclass(frozen=True)
class InjectConfig:
    """How much is injected.

    Attributes:
        size: attack users of each type, as a share of the genuine users.
        filler: filler items of a shilling profile, as a share of the catalogue (low, high).
        selected: selected items of a bandwagon or segment profile.
        campaigns: sizes of campaigns, in turn: accounts that share targets. They stay together in a split
            (`split_group`). The last campaign of a type has what is left of its accounts.
        popularity: where the targets of `lookalikes` stand among all items by their holders (low, high), 0 the fewest.
        surges: what genuine users are drawn to, of SURGES (`surges`).
        seed: seed of everything that is drawn at random.
    """

    size: float = 0.05
    filler: tuple[float, float] = (0.03, 0.05)
    selected: int = 5
    campaigns: tuple[int, ...] = (10,)
    popularity: tuple[float, float] = (0.0, 1.0)
    surges: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Profile:
    """One account: which rows of the log its events copy, and what they change.

    Attributes:
        rows: int64 (T,) rows of the log that lend their columns.
        ts: float64 (T,) times, or None to keep the rows'.
        rating: float64 (T,) ratings, NaN to keep the row's, or None to keep all.
        action: an action for each event ("" keeps the row's), or None to keep all.
        event_label: int8 (T,), 1 for the events that the attacker made.
        template: the genuine sequence that lends group columns.
        replaces: the genuine sequence whose place it takes, or -1.
        targets: items of the catalogue that it should push or nuke.
    """

    rows: Rows
    ts: NDArray[np.float64] | None
    rating: NDArray[np.float64] | None
    action: list[str] | None
    event_label: NDArray[np.int8]
    template: int
    replaces: int = -1
    targets: tuple[int, ...] = ()


class Catalogue:
    """What an attacker knows of a log: its items, their ratings and popularity, and its users' habits."""

    def __init__(self, log: Log, config: InjectConfig, rng: Generator) -> None:
        if "item_id" not in log.events.columns:
            raise LogError("inject needs the column 'item_id'; name it with --columns item_id=THEIRS")
        self.log, self.config, self.rng = log, config, rng
        events = log.events.with_row_index("_row").filter(pl.col("item_id").is_not_null())
        rating = pl.col("rating") if "rating" in events.columns else pl.lit(None, dtype=pl.Float64)
        grouped = events.group_by("item_id").agg(
            rows="_row", holders=pl.col("sequence_id").n_unique(), mean=rating.mean()
        )
        grouped = grouped[sorted(range(grouped.height), key=lambda i: catalogue_order(grouped["item_id"][i]))]
        self.items: list[str] = grouped["item_id"].to_list()
        self.rows_of: list[list[int]] = grouped["rows"].to_list()
        self.holders = grouped["holders"].to_numpy()
        self.mean = grouped["mean"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        self.has_ratings = not np.isnan(self.mean).all()
        self.has_times = not np.isnan(log.ends).any()
        if self.has_ratings:
            values = log.events["rating"].drop_nulls().to_numpy()
            self.low, self.high = float(values.min()), float(values.max())
            self.center, self.spread = float(values.mean()), float(values.std())
            self.levels = np.unique(values) if len(np.unique(values)) <= 64 else None
        actions = log.events["action"].drop_nulls().unique().sort().to_list()
        frequent = log.events["action"].drop_nulls().mode().sort().to_list()[:1]
        self.click = next((a for a in actions if "click" in a.lower() or "view" in a.lower()), "".join(frequent))
        self.purchase = next(
            (a for a in actions if any(w in a.lower() for w in ("purchase", "buy", "order"))), "".join(frequent)
        )

    def copy_rows(self, items: NDArray[np.int64]) -> Rows:
        """A random real event on each item."""
        return np.array([self.rng.choice(self.rows_of[i]) for i in items], dtype=np.int64)

    def target(self) -> int:
        """An item of the popularity that is asked for."""
        low, high = (int(share * len(self.items)) for share in self.config.popularity)
        low = min(low, len(self.items) - 1)
        return int(self.rng.choice(np.argsort(self.holders, kind="stable")[low : max(high, low + 1)]))

    def histories(self, moments: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each moment a genuine user to be copied, with LEAST events or more, as far as there are such.

        Where there are times, the history has ended by then: nobody copies what has yet to happen.
        """
        able = np.flatnonzero(np.diff(self.log.offsets) >= LEAST)
        able = able if len(able) else np.arange(len(self.log))
        if not self.has_times:
            return self.rng.choice(able, len(moments))
        by_end = able[np.argsort(self.log.ends[able], kind="stable")]
        ended = np.searchsorted(self.log.ends[by_end], moments, side="right")
        return by_end[self.rng.integers(0, np.maximum(ended, 1))]

    def own(self, user: int) -> Rows:
        """The user's rows, by time where there are times."""
        a, b = int(self.log.offsets[user]), int(self.log.offsets[user + 1])
        return a + np.argsort(self.ts[a:b], kind="stable")

    @cached_property
    def ts(self) -> NDArray[np.float64]:
        """Float64 (E,): times, NaN where there are none."""
        return self.log.events["ts"].cast(pl.Float64).fill_null(np.nan).to_numpy()

    @cached_property
    def item_of(self) -> NDArray[np.int64]:
        """Int64 (E,): each row's item by its number, -1 for a row without one."""
        numbers = np.full(self.log.events.height, -1, dtype=np.int64)
        for item, rows in enumerate(self.rows_of):
            numbers[rows] = item
        return numbers

    @cached_property
    def factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factors of users (N, K) and items (I, K), whose products are who holds what, popular items weighing less.

        The truncated singular value decomposition that recommends in Cremonesi, Koren and Turrin, "Performance of
        recommender algorithms on top-N recommendation tasks", RecSys 2010. Items are divided by the root of their
        holders, so that their products are cosines.
        """
        from sklearn.utils.extmath import randomized_svd  # takes two seconds, which other commands need not wait

        owner = np.repeat(np.arange(len(self.log)), np.diff(self.log.offsets))
        named = self.item_of >= 0
        pairs = np.unique(np.column_stack((owner, self.item_of))[named], axis=0)
        weight = 1 / np.sqrt(self.holders[pairs[:, 1]])
        held = sp.csr_matrix((weight, pairs.T), shape=(len(self.log), len(self.items)))
        users, sizes, items = randomized_svd(held, min(FACTORS, *held.shape), random_state=self.config.seed)
        return users * sizes, items.T

    def like_minded(self, user: int, count: int) -> NDArray[np.int64]:
        """The users whose taste is nearest to that of `user`, without that one."""
        users = self.factors[0] / np.maximum(np.linalg.norm(self.factors[0], axis=1, keepdims=True), 1e-12)
        nearest = np.argsort(-(users @ users[user]), kind="stable")
        return np.asarray(nearest[nearest != user][:count])

    def templates(self, count: int) -> NDArray[np.int64]:
        """Genuine users as templates for one campaign; they are close in time, since a campaign runs in one period."""
        if not self.has_times:
            return self.rng.integers(0, len(self.log), count)
        moment = self.rng.choice(self.log.ends)
        near = np.argsort(np.abs(self.log.ends - moment), kind="stable")[: max(3 * count, len(self.log) // 10)]
        return self.rng.choice(near, count)

    def times(self, template: int, count: int) -> NDArray[np.float64] | None:
        """Times of `count` events in the template's rhythm: its start shifted by up to a week, its gaps drawn again."""
        if not self.has_times:
            return None
        a, b = self.log.offsets[template], self.log.offsets[template + 1]
        own = np.sort(self.log.events["ts"][int(a) : int(b)].to_numpy())
        gaps = self.rng.choice(np.diff(own), count - 1) if len(own) > 1 else self.rng.exponential(60.0, count - 1)
        start = own[0] + self.rng.uniform(-3.5, 3.5) * 86400
        return self.within(np.concatenate(([start], start + np.cumsum(gaps))))

    def within(self, ts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The times, all shifted by the same amount to fit into the log's period, at the log's resolution.

        Where they last longer than the log, they are drawn together.
        """
        low, high = self.period
        ts = ts - max(ts[-1] - high, 0.0)
        ts = ts + max(low - ts[0], 0.0)
        if ts[-1] > high:
            ts = low + (ts - ts[0]) * (high - low) / (ts[-1] - ts[0])
        return self.resolved(ts)

    @cached_property
    def period(self) -> tuple[float, float]:
        """The log's first and last time."""
        return float(self.ts.min()), float(self.ts.max())

    @cached_property
    def _whole(self) -> bool:
        return bool((self.ts % 1 == 0).all())

    def resolved(self, ts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The times at the log's resolution: whole seconds, or as they are."""
        return np.floor(ts) if self._whole else ts

    def moments(self, count: int) -> NDArray[np.float64]:
        """When each account of a campaign acts, float64 (count,), NaN without times.

        It may be at any pace, from all within an hour to spread over the whole log.
        """
        if not self.has_times:
            return np.full(count, np.nan)
        low, high = self.period
        span = min(float(np.exp(self.rng.uniform(np.log(HOUR), np.log(max(high - low, HOUR))))), high - low)
        opens = self.rng.uniform(low, high - span)
        return opens + self.rng.uniform(0, span, count)

    def around(self, own: Rows, moment: float) -> tuple[int, NDArray[np.float64] | None]:
        """Where in a history (T,) a further event at `moment` belongs, and the times of all, float64 (T + 1,).

        The history is shifted to a later time, as a whole, so that the event lies within it, and stays in the log's
        period. Without times the event may be anywhere.
        """
        if not self.has_times:
            return int(self.rng.integers(0, len(own) + 1)), None
        ts = self.ts[own]
        shift = np.clip(moment - self.rng.uniform(ts[0], ts[-1]), 0.0, self.period[1] - ts[-1])
        place = int(np.searchsorted(ts, moment - shift, side="right"))
        return place, self.resolved(np.insert(ts + shift, place, moment))

    def other_ratings(self, rows: Rows) -> NDArray[np.float64]:
        """For each row a rating that the log uses, other than the row's own."""
        if self.levels is None:
            return self.rng.uniform(self.low, self.high, len(rows))
        own = np.abs(self.log.events["rating"].to_numpy()[rows][:, None] - self.levels[None, :]).argmin(axis=1)
        step = self.rng.integers(1, max(len(self.levels), 2), len(rows))
        return np.asarray(self.levels[(own + step) % len(self.levels)])

    def on_scale(self, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratings, each rounded to the nearest one that the log uses."""
        if self.levels is None:
            return np.clip(ratings, self.low, self.high)
        return np.asarray(self.levels[np.abs(ratings[:, None] - self.levels[None, :]).argmin(axis=1)])
