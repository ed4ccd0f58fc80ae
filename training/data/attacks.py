"""The kinds of attack users: the shilling models of the literature, and attacks that show in the times of events.

Every attack user is built on a template, which is a genuine user of the log. The template lends the times, the group
columns, and the length of the profile if the attack leaves it open. Each faked event copies its other columns from a
real event on the same item. `lookalikes` has accounts that look genuine one by one. `injection` puts the attack users
into a log.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.data.catalogue import Catalogue, Profile
from training.data.lookalikes import LOOKALIKES


def _shilling(selected_items: str, filler_ratings: str, push: bool) -> Callable[[Catalogue, int], list[Profile]]:
    """A shilling attack: an extreme rating for the target, selected items to look alike, fillers to look genuine.

    A log without ratings has the items alone, and then only an attack that pushes says something.
    """

    def campaign(c: Catalogue, size: int) -> list[Profile]:
        rare = np.flatnonzero(c.holders <= np.quantile(c.holders, 0.5))
        target = int(c.rng.choice(rare if push else np.flatnonzero(c.holders >= np.quantile(c.holders, 0.5))))
        selected = _selected(c, selected_items, target, push)
        profiles = []
        for template in c.templates(size):
            share = c.rng.uniform(*c.config.filler)
            others = np.setdiff1d(np.arange(len(c.items)), [target, *selected])
            filler = c.rng.choice(others, min(max(round(share * len(c.items)), 1), len(others)), replace=False)
            items = np.array([target, *selected, *filler], dtype=np.int64)
            ratings = _ratings(c, filler, len(items), filler_ratings, push) if c.has_ratings else None
            order = c.rng.permutation(len(items))
            profiles.append(
                Profile(
                    rows=c.copy_rows(items[order]),
                    ts=c.times(template, len(items)),
                    rating=None if ratings is None else ratings[order],
                    action=None,
                    event_label=np.ones(len(items), dtype=np.int8),
                    template=int(template),
                    targets=(target,),
                )
            )
        return profiles

    return campaign


def _ratings(c: Catalogue, filler: NDArray[np.int64], count: int, kind: str, push: bool) -> NDArray[np.float64]:
    """Float64 (count,): the extreme rating for target and selected items, then those of the fillers."""
    extreme, opposite = (c.high, c.low) if push else (c.low, c.high)
    if kind == "opposite":
        given = np.full(len(filler), opposite)
    else:
        center = np.where(np.isnan(c.mean[filler]), c.center, c.mean[filler]) if kind == "item" else c.center
        given = c.rng.normal(center, c.spread, len(filler))
    return np.concatenate((np.full(count - len(filler), extreme), c.on_scale(given)))


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
    goes on in the other's rhythm, after a gap that the victim had. In a log without times only the taste tells, so the
    two of a pair differ in it: they stand far apart along the axis in which tastes differ most.
    """
    lengths = np.diff(c.log.offsets)
    able = np.flatnonzero(lengths >= 10)
    profiles = []
    drawn = c.rng.permutation(able)[: 2 * max(size // 2, 1)]
    drawn = drawn[: len(drawn) // 2 * 2]
    if c.has_times:
        pairs = drawn.reshape(-1, 2)
    else:
        axis = c.factors[0][:, np.argmax(c.factors[0].var(axis=0))]
        pairs = drawn[np.argsort(axis[drawn], kind="stable")].reshape(2, -1).T
    for a, b in pairs:
        cut = {u: int(lengths[u] * c.rng.uniform(0.4, 0.8)) for u in (int(a), int(b))}
        by_time = {u: c.own(u) for u in cut}
        for victim, thief in ((int(a), int(b)), (int(b), int(a))):
            head, tail = by_time[victim][: cut[victim]], by_time[thief][cut[thief] :]
            head_ts, tail_ts = c.ts[head], c.ts[tail]
            pause = c.rng.choice(np.diff(head_ts)) if len(head) > 1 else 3600.0
            ts = np.concatenate((head_ts, tail_ts - tail_ts[0] + head_ts[-1] + pause + 1))
            profiles.append(
                Profile(
                    rows=np.concatenate((head, tail)).astype(np.int64),
                    ts=c.within(ts) if c.has_times else None,
                    rating=None,
                    action=None,
                    event_label=np.concatenate((np.zeros(len(head)), np.ones(len(tail)))).astype(np.int8),
                    template=victim,
                    replaces=victim,
                )
            )
    return profiles


# Random and average attack: Lam and Riedl, "Shilling recommender systems for fun and profit", WWW 2004. Bandwagon,
# segment and reverse bandwagon (the nuking bandwagon here): Mobasher, Burke, Bhaumik and Williams, "Toward trustworthy
# recommender systems: an analysis of attack models and algorithm robustness", ACM TOIT 2007.
ATTACKS: dict[str, Callable[[Catalogue, int], list[Profile]]] = (
    {
        f"{name}_{'push' if push else 'nuke'}": _shilling(selected, filler, push)
        for name, (selected, filler) in {
            "random": ("none", "all"),
            "average": ("none", "item"),
            "bandwagon": ("popular", "all"),
            "segment": ("segment", "opposite"),
        }.items()
        for push in (True, False)
    }
    | {"click_farm": click_farm, "crawler": crawler, "fake_order": fake_order, "takeover": takeover}
    | LOOKALIKES
)
NEED_TIMES = frozenset({"click_farm", "crawler", "fake_order"})
NEED_RATINGS = frozenset({"copy_rerated", "average_push", *(kind for kind in ATTACKS if kind.endswith("_nuke"))})


def model_of(kind: str) -> str:
    """The attack model of a type: a shilling model has a pushing and a nuking type, and copying has three."""
    return "copy" if kind.startswith("copy_") else kind.removesuffix("_push").removesuffix("_nuke")


def lacking(kind: str, c: Catalogue) -> str:
    """What a type needs and the log lacks: "times", "ratings", or "" if the log allows it."""
    if kind in NEED_TIMES and not c.has_times:
        return "times"
    return "ratings" if kind in NEED_RATINGS and not c.has_ratings else ""


def others(kind: str) -> list[str]:
    """The types of all other attack models."""
    return [t for t in ATTACKS if model_of(t) != model_of(kind)]
