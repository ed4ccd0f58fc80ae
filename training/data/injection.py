"""Adds labelled attack users to a real log, and surges of genuine users if asked for.

All users get new ids and the sequences are written in random order, so that neither reveals an attacker.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.data.attacks import ATTACKS, lacking, takeover
from training.data.catalogue import Catalogue, InjectConfig, Profile
from training.data.log import Log, LogError
from training.data.surges import AND, NOBODY, SURGES, with_surges
from training.data.vectors import apart

logger = logging.getLogger(__name__)


def inject(
    log: Log, labels: pl.DataFrame | None, config: InjectConfig, types: list[str] | None = None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Adds attack users to a log.

    Args:
        log: the genuine log.
        labels: its label table, whose labels and group columns are carried over; with None everybody is genuine.
        config: sizes and seed.
        types: names from ATTACKS; None means all that the log has the columns for.

    Returns:
        events (with `event_label`), labels (`sequence_id,label,type,split_group,campaign` and the group columns), and
        sources: each new `sequence_id` with the log's own id, null for an attack user, and the items that it pushes or
        nukes. Accounts with the same `campaign` have the same targets; it is null where there are none. With surges,
        the group column `surge` says which a genuine user takes part in.

    Raises:
        LogError: an unknown type or surge, or a type that needs a column the log lacks.
    """
    rng = np.random.default_rng(config.seed)
    groups = _group_columns(log, labels)
    if config.surges:
        log, took_part = with_surges(log, [g.get("label") != 1 for g in groups], config.surges, config.seed)
        groups = [{**g, "surge": surge} for g, surge in zip(groups, took_part, strict=True)]
    catalogue = Catalogue(log, config, rng)
    faked = _profiles(catalogue, _usable_types(catalogue, types))
    replaced = {f.profile.replaces for f in faked}
    genuine = [i for i in range(len(log)) if i not in replaced]
    total = len(genuine) + len(faked)
    width = len(str(10 * total))
    fresh = [f"{n:0{width}d}" for n in rng.choice(10**width, total, replace=False)]
    order = rng.permutation(total)

    parts: list[pl.DataFrame] = []
    label_rows: list[dict[str, object]] = []
    sources: list[dict[str, object]] = []
    base = log.events.drop("sequence_id", "event_label", "event_id", strict=False)
    for place in order:
        new_id = fresh[place]
        if place < len(genuine):
            i = genuine[place]
            own = base[int(log.offsets[i]) : int(log.offsets[i + 1])]
            parts.append(own.with_columns(sequence_id=pl.lit(new_id), event_label=pl.lit(0, dtype=pl.Int8)))
            blank = {"label": 0, "type": None, "split_group": None, "campaign": None}
            label_rows.append({"sequence_id": new_id, **blank, **groups[i]})
            sources.append({"sequence_id": new_id, "source": log.ids[i], "targets": []})
        else:
            one = faked[place - len(genuine)]
            own_name = {"user_id": pl.lit(new_id)} if "user_id" in base.columns else {}
            parts.append(events_of(base, one.profile).with_columns(sequence_id=pl.lit(new_id), **own_name))
            label_rows.append({"sequence_id": new_id, **one.label(groups[one.profile.template])})
            sources.append({"sequence_id": new_id, **one.source(catalogue)})
    columns = ["sequence_id", *base.columns, "event_label"]
    if log.events["ts"].is_null().all():
        columns.remove("ts")
    events = pl.concat([part.select(columns) for part in parts], how="vertical_relaxed")
    schema: dict[str, Any] = {"sequence_id": pl.String, "source": pl.String, "targets": pl.List(pl.String)}
    return events, pl.DataFrame(label_rows, infer_schema_length=None), pl.DataFrame(sources, schema)


@dataclass(frozen=True)
class _Faked:
    """An attack user: its kind, the group that keeps its campaign together in a split, and its account."""

    kind: str
    group: str
    profile: Profile

    def label(self, template: Mapping[str, object]) -> dict[str, object]:
        """Its row of the label table, with the group columns of its template."""
        inherited = {k: v for k, v in template.items() if k not in ("label", "type")}
        known = {"label": 1, "type": self.kind, "split_group": self.group}
        together = {"campaign": self.group if self.profile.targets else None}
        return {**inherited, **known, **together, **({"surge": NOBODY} if "surge" in template else {})}

    def source(self, catalogue: Catalogue) -> dict[str, object]:
        """The user whose place it takes, and the items that it pushes or nukes."""
        replaced = catalogue.log.ids[self.profile.replaces] if self.profile.replaces >= 0 else None
        return {"source": replaced, "targets": [catalogue.items[t] for t in self.profile.targets]}


def _profiles(catalogue: Catalogue, kinds: Sequence[str]) -> list[_Faked]:
    """The attack users of each kind, campaign by campaign."""
    config = catalogue.config
    count = max(round(config.size * len(catalogue.log)), 1)
    faked: list[_Faked] = []
    for kind in kinds:
        if kind == "takeover":  # all at once, so that nobody is a victim twice; the two of a pair stay together
            faked += [_Faked(kind, f"{kind} {i // 2}", p) for i, p in enumerate(takeover(catalogue, count))]
            continue
        for number, size in enumerate(_sizes(count, config.campaigns)):
            faked += [_Faked(kind, f"{kind} {number}", p) for p in ATTACKS[kind](catalogue, size)]
    return faked


def _sizes(count: int, campaigns: Sequence[int]) -> list[int]:
    """The sizes of campaigns, taken in turn until they make up `count` accounts; the last is cut to fit."""
    sizes: list[int] = []
    for size in cycle(campaigns):
        if (left := count - sum(sizes)) <= 0:
            return sizes
        sizes.append(min(size, left))
    return sizes


def _usable_types(catalogue: Catalogue, types: list[str] | None) -> list[str]:
    chosen = []
    for kind in types or list(ATTACKS):
        if kind not in ATTACKS:
            raise LogError(f"unknown attack type {kind!r}; there are {', '.join(ATTACKS)}")
        lacks = lacking(kind, catalogue)
        if not lacks:
            chosen.append(kind)
        elif types:
            raise LogError(
                f"attack type {kind!r} needs {lacks}, which the log lacks; name the column of the log with "
                f"--columns {'ts' if lacks == 'times' else 'rating'}=THEIRS"
            )
        else:
            logger.warning("left out %s: it needs %s, which the log lacks", kind, lacks)
    return chosen


def _group_columns(log: Log, labels: pl.DataFrame | None) -> list[dict[str, object]]:
    """The label table's row of each sequence, without its id."""
    if labels is None:
        return [{} for _ in log.ids]
    joined = pl.DataFrame({"sequence_id": log.ids}).join(labels, on="sequence_id", how="left", maintain_order="left")
    return joined.drop("sequence_id").with_columns(pl.col("label").cast(pl.Int64).fill_null(0)).to_dicts()


def events_of(base: pl.DataFrame, profile: Profile) -> pl.DataFrame:
    """The events of one account, from the rows of a log and what its profile changes; with `event_label`."""
    events = base[profile.rows]
    if profile.ts is not None:
        events = events.with_columns(pl.Series("ts", profile.ts))
    if profile.rating is not None:
        given = pl.Series("rating", profile.rating).fill_nan(None)
        events = events.with_columns(given.fill_null(events["rating"]).alias("rating"))
    if profile.action is not None:
        given = pl.Series("action", [a or None for a in profile.action], dtype=pl.String)
        events = events.with_columns(given.fill_null(events["action"]).alias("action"))
    return events.with_columns(pl.Series("event_label", profile.event_label, dtype=pl.Int8))


def said(labels: pl.DataFrame) -> list[str]:
    """What `inject` has added, in words: one line for each type and each surge."""
    anomalous = labels.filter(pl.col("label") == 1, pl.col("type").is_in(list(ATTACKS)))
    by_type = anomalous.group_by("type").agg(pl.len(), pl.col("campaign").drop_nulls().n_unique()).sort("type")
    lines = [
        f"{kind}: {accounts} accounts" + (f" in {campaigns} campaigns" if campaigns else "")
        for kind, accounts, campaigns in by_type.iter_rows()
    ]
    if "surge" in labels.columns:
        for surge in SURGES:
            users = labels.filter(pl.col("surge").str.split(AND).list.contains(surge)).height
            lines.append(f"{surge}: {users} genuine users, labelled as before")
    return lines


def write(out: Path, events: pl.DataFrame, labels: pl.DataFrame, sources: pl.DataFrame) -> None:
    """Writes `events.csv`, `labels.csv` and `sources.csv` into a folder; a vector has a column for each number."""
    out.mkdir(parents=True, exist_ok=True)
    apart(events).write_csv(out / "events.csv")
    labels.write_csv(out / "labels.csv")
    said = sources["targets"].map_elements(lambda items: json.dumps(items.to_list()), pl.String)
    sources.with_columns(targets=said).write_csv(out / "sources.csv")
