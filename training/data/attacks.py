"""The kinds of attack users: the shilling models of the literature, and attacks that show in the times of events.

Every attack user is built on a template, which is a genuine user of the log. The template lends the times, the group
columns, and the length of the profile if the attack leaves it open. Each faked event copies its other columns from a
real event on the same item. `injection` puts the attack users into a log.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from service.encoding.values import catalogue_order
from training.data.log import Log, LogError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class InjectConfig:
    """How much is injected.

    Attributes:
        size: attack users of each type, as a share of the genuine users.
        filler: filler items of a shilling profile, as a share of the catalogue (low, high).
        selected: selected items of a bandwagon or segment profile.
        campaign: accounts that share targets; they stay together in a split (`split_group`).
        seed: seed of everything that is drawn at random.
    """

    size: float = 0.05
    filler: tuple[float, float] = (0.03, 0.05)
    selected: int = 5
    campaign: int = 10
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
        """The times, all shifted by the same amount to fit into the log's period, at the log's resolution."""
        low, high = float(self.log.events["ts"].min()), float(self.log.events["ts"].max())  # type: ignore[arg-type]
        ts = ts - max(ts[-1] - high, 0.0)
        ts = ts + max(low - ts[0], 0.0)
        whole = bool((self.log.events["ts"] % 1 == 0).all())
        return np.floor(ts) if whole else ts

    def on_scale(self, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratings, each rounded to the nearest one that the log uses."""
        if self.levels is None:
            return np.clip(ratings, self.low, self.high)
        return np.asarray(self.levels[np.abs(ratings[:, None] - self.levels[None, :]).argmin(axis=1)])


def _shilling(selected_items: str, filler_ratings: str, push: bool) -> Callable[[Catalogue, int], list[Profile]]:
    """A shilling attack: an extreme rating for the target, selected items to look alike, fillers to look genuine."""

    def campaign(c: Catalogue, size: int) -> list[Profile]:
        extreme, opposite = (c.high, c.low) if push else (c.low, c.high)
        rare = np.flatnonzero(c.holders <= np.quantile(c.holders, 0.5))
        target = int(c.rng.choice(rare if push else np.flatnonzero(c.holders >= np.quantile(c.holders, 0.5))))
        selected = _selected(c, selected_items, target, push)
        profiles = []
        for template in c.templates(size):
            share = c.rng.uniform(*c.config.filler)
            others = np.setdiff1d(np.arange(len(c.items)), [target, *selected])
            filler = c.rng.choice(others, min(max(round(share * len(c.items)), 1), len(others)), replace=False)
            if filler_ratings == "opposite":
                given = np.full(len(filler), opposite)
            else:
                center = (
                    np.where(np.isnan(c.mean[filler]), c.center, c.mean[filler])
                    if filler_ratings == "item"
                    else c.center
                )
                given = c.rng.normal(center, c.spread, len(filler))
            items = np.array([target, *selected, *filler], dtype=np.int64)
            ratings = np.concatenate((np.full(1 + len(selected), extreme), c.on_scale(given)))
            order = c.rng.permutation(len(items))
            profiles.append(
                Profile(
                    rows=c.copy_rows(items[order]),
                    ts=c.times(template, len(items)),
                    rating=ratings[order],
                    action=None,
                    event_label=np.ones(len(items), dtype=np.int8),
                    template=int(template),
                    targets=(target,),
                )
            )
        return profiles

    return campaign


def _selected(c: Catalogue, kind: str, target: int, push: bool) -> list[int]:
    """The selected items: none, the widely liked (to nuke, the widely disliked), or those of one segment."""
    if kind == "none":
        return []
    if kind == "popular":
        if push:
            best = np.argsort(-c.holders, kind="stable")
        else:
            known = np.where(c.holders >= np.median(c.holders), c.mean, np.inf)
            best = np.argsort(known, kind="stable")
        return [int(i) for i in best[: 3 * c.config.selected] if i != target][: c.config.selected]
    # the items of a segment have the same fans: take the items most often held by users who hold one of them
    anchor = int(c.rng.choice(np.argsort(-c.holders, kind="stable")[: max(len(c.items) // 10, 1)]))
    fans = c.log.events["sequence_id"][c.rows_of[anchor]]
    near = (
        c.log.events.filter(pl.col("sequence_id").is_in(fans.implode()))
        .group_by("item_id")
        .agg(pl.col("sequence_id").n_unique())
    )
    share = dict(near.iter_rows())
    lift = np.array([share.get(item, 0) / np.sqrt(h) for item, h in zip(c.items, c.holders, strict=True)])
    return [int(i) for i in np.argsort(-lift, kind="stable")[: c.config.selected + 1] if i != target][
        : c.config.selected
    ]


def click_farm(c: Catalogue, size: int) -> list[Profile]:
    """Hired people click a few targets in bursts: clicks 0.5 to 4 s apart, bursts of 5 to 20, pauses of hours.

    Wang et al., "Clickstream user behavior models", ACM TWEB 2017, found such bursts on few targets in purchased
    accounts.
    """
    targets = c.rng.choice(len(c.items), 8, replace=len(c.items) < 8)
    profiles = []
    for template in c.templates(size):
        count = int(np.clip(c.log.offsets[template + 1] - c.log.offsets[template], 20, 200))
        ts: list[float] = []
        now = c.log.ends[template] - 3 * 86400
        while len(ts) < count:
            for gap in c.rng.uniform(0.5, 4.0, int(c.rng.integers(5, 21))):
                now += gap
                ts.append(now)
            now += c.rng.exponential(3 * 3600)
        items = c.rng.choice(targets, count)
        profiles.append(
            Profile(
                rows=c.copy_rows(items),
                ts=c.within(np.array(ts[:count])),
                rating=np.full(count, c.high) if c.has_ratings else None,
                action=[c.click] * count,
                event_label=np.ones(count, dtype=np.int8),
                template=int(template),
                targets=tuple(targets.tolist()),
            )
        )
    return profiles


def crawler(c: Catalogue, size: int) -> list[Profile]:
    """A script that walks the catalogue in its order at a steady pace.

    Regular gaps and systematic coverage are the signs named by Stassopoulou and Dikaiakos, "Web robot detection: a
    probabilistic reasoning approach", Computer Networks 2009.
    """
    profiles = []
    for template in c.templates(size):
        count = int(c.rng.integers(40, 200))
        first = int(c.rng.integers(0, len(c.items)))
        items = (first + np.arange(count)) % len(c.items)
        pace = float(c.rng.uniform(2.0, 30.0))
        start = c.log.ends[template] - c.rng.uniform(0, 2 * 86400)
        profiles.append(
            Profile(
                rows=c.copy_rows(items),
                ts=c.within(start + np.cumsum(pace * c.rng.normal(1.0, 0.02, count).clip(0.5))),
                rating=None,
                action=[c.click] * count,
                event_label=np.ones(count, dtype=np.int8),
                template=int(template),
            )
        )
    return profiles


def fake_order(c: Catalogue, size: int) -> list[Profile]:
    """Order brushing: a ring of accounts buys the same few items within one day, hidden among ordinary behaviour.

    The pattern is from Xu et al., "E-commerce reputation manipulation: the emergence of
    reputation-escalation-as-a-service", WWW 2015. The ordinary behaviour is drawn from the items of the account's
    template, so that no event is in the log twice.
    """
    targets = c.rng.choice(len(c.items), 5, replace=len(c.items) < 5)
    opens = float(c.rng.choice(c.log.ends)) - 86400.0
    profiles = []
    for template in c.templates(size):
        cover_count = int(c.rng.integers(10, 40))
        cover = c.rng.choice(np.arange(len(c.items)), cover_count, p=c.holders / c.holders.sum())
        cover_ts = c.times(int(template), cover_count)
        assert cover_ts is not None
        cover_ts = cover_ts - cover_ts[-1] + opens + c.rng.uniform(-86400, 86400)
        bought = c.rng.permutation(np.repeat(targets, 2))[: int(c.rng.integers(5, 11))]
        bought_ts = np.sort(opens + c.rng.uniform(0, 86400, len(bought)))
        items, ts = np.concatenate((cover, bought)), np.concatenate((cover_ts, bought_ts))
        faked = np.concatenate((np.zeros(cover_count), np.ones(len(bought)))).astype(np.int8)
        order = np.argsort(ts, kind="stable")
        kept = np.full(len(items), np.nan)
        profiles.append(
            Profile(
                rows=c.copy_rows(items[order]),
                ts=c.within(ts[order]),
                rating=np.where(faked[order] == 1, c.high, kept) if c.has_ratings else None,
                action=[c.purchase if f else "" for f in faked[order]],
                event_label=faked[order],
                template=int(template),
                targets=tuple(targets.tolist()),
            )
        )
    return profiles


def takeover(c: Catalogue, size: int) -> list[Profile]:
    """Account takeover: two users swap accounts, so that somebody else's behaviour continues each history.

    Both victims are replaced, so nothing is in the log twice. Each event after the swap is labelled. Each of the two
    goes on in the other's rhythm, after a gap that the victim had.
    """
    lengths = np.diff(c.log.offsets)
    able = np.flatnonzero(lengths >= 10)
    profiles = []
    pairs = c.rng.permutation(able)[: 2 * max(size // 2, 1)].reshape(-1, 2)
    for a, b in pairs:
        cut = {u: int(lengths[u] * c.rng.uniform(0.4, 0.8)) for u in (int(a), int(b))}
        by_time = {u: c.log.offsets[u] + np.argsort(_ts(c.log, u), kind="stable") for u in cut}
        for victim, thief in ((int(a), int(b)), (int(b), int(a))):
            head, tail = by_time[victim][: cut[victim]], by_time[thief][cut[thief] :]
            head_ts, tail_ts = _ts(c.log, 0, head), _ts(c.log, 0, tail)
            pause = c.rng.choice(np.diff(head_ts)) if len(head) > 1 else 3600.0
            ts = np.concatenate((head_ts, tail_ts - tail_ts[0] + head_ts[-1] + pause + 1))
            profiles.append(
                Profile(
                    rows=np.concatenate((head, tail)).astype(np.int64),
                    ts=c.within(ts),
                    rating=None,
                    action=None,
                    event_label=np.concatenate((np.zeros(len(head)), np.ones(len(tail)))).astype(np.int8),
                    template=victim,
                    replaces=victim,
                )
            )
    return profiles


def _ts(log: Log, sequence: int, rows: Rows | None = None) -> NDArray[np.float64]:
    rows = np.arange(log.offsets[sequence], log.offsets[sequence + 1]) if rows is None else rows
    return log.events["ts"].to_numpy()[rows]


# Random and average attack: Lam and Riedl, "Shilling recommender systems for fun and profit", WWW 2004. Bandwagon,
# segment and reverse bandwagon (the nuking bandwagon here): Mobasher, Burke, Bhaumik and Williams, "Toward trustworthy
# recommender systems: an analysis of attack models and algorithm robustness", ACM TOIT 2007.
ATTACKS: dict[str, Callable[[Catalogue, int], list[Profile]]] = {
    f"{name}_{'push' if push else 'nuke'}": _shilling(selected, filler, push)
    for name, (selected, filler) in {
        "random": ("none", "all"),
        "average": ("none", "item"),
        "bandwagon": ("popular", "all"),
        "segment": ("segment", "opposite"),
    }.items()
    for push in (True, False)
} | {"click_farm": click_farm, "crawler": crawler, "fake_order": fake_order, "takeover": takeover}
NEED_TIMES = frozenset({"click_farm", "crawler", "fake_order", "takeover"})


def others(kind: str) -> list[str]:
    """The types of all other attack models; a shilling model has both a pushing and a nuking type."""
    model = kind.removesuffix("_push").removesuffix("_nuke")
    return [t for t in ATTACKS if t != kind and not t.startswith(f"{model}_")]
