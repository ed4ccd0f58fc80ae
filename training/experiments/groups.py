"""Measures how well campaigns are found: members, and the purity of groups, beside two rivals from the literature.

Campaigns are injected among genuine users, kind by kind, and all of the log is looked at. What is found among genuine
users alone, and where they take part in surges, is false.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from service.encoding.held import Held
from training.apply.boxes import FEWEST
from training.apply.campaigns import read
from training.apply.groups import find_groups
from training.apply.nearness import Neighbours
from training.data.attacks import lacking
from training.data.catalogue import Catalogue, InjectConfig
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log
from training.data.surges import SURGES, with_surges
from training.evaluation import pages
from training.evaluation.quality import rate
from training.experiments.result_cache import Kept, fingerprint, keeper

Members = list[NDArray[np.int64]]
KINDS = ("copy_whole", "copy_part", "shared_target", "optimised", "random_push", "bandwagon_push", "fake_order")
SIZE, SIZES = 0.05, (5, 10, 30)  # attack users as a share of the genuine ones, and accounts of their campaigns
LEAST = (5, 10)  # accounts of the campaigns that count
SEEDS = 3
NEAR = 0.5  # overlap of near-duplicates
DAMPING = 5.0  # of FRAUDAR's weights


def ours(histories: Sequence[Held], campaigns: int) -> Members:
    """The groups that `recguard-train campaigns` finds."""
    return [group.members for group in find_groups(histories)]


def near_duplicates(histories: Sequence[Held], campaigns: int) -> Members:
    """Connected components of accounts that have most in common, after Cao et al. (SynchroTrap), CCS 2014."""
    near = Neighbours.of(histories)
    one, rank = np.nonzero((near.overlap >= NEAR) & (near.who >= 0))
    shape = (len(histories), len(histories))
    links = sp.coo_matrix((np.ones(len(one)), (one, near.who[one, rank])), shape=shape)
    _, component = connected_components(links, directed=False)
    found = [np.flatnonzero(component == c) for c in np.flatnonzero(np.bincount(component) >= FEWEST)]
    return sorted(found, key=len, reverse=True)


def fraudar(histories: Sequence[Held], campaigns: int) -> Members:
    """The densest blocks of accounts and values, one for each campaign that there is.

    Hooi et al., "FRAUDAR: bounding graph fraud in the face of camouflage", KDD 2016, algorithm 1 with the weight
    1 / log(holders + 5) of each value; a block's claims are taken out before the next one is sought.
    """
    named = [np.unique(np.where(held.sided != 0, held.sided, held.keys)) for held in histories]
    account = np.repeat(np.arange(len(named)), list(map(len, named)))
    keys, value = np.unique(np.concatenate(named), return_inverse=True)
    found: Members = []
    for _ in range(campaigns):
        block = _densest(account, value, len(named), len(keys))
        found.append(np.flatnonzero(block[: len(named)]))
        left = ~(block[account] & block[len(named) + value])
        account, value = account[left], value[left]
    return found


def _densest(account: NDArray[np.int64], value: NDArray[np.int64], accounts: int, values: int) -> NDArray[np.bool_]:
    """Bool (accounts + values,): the nodes left where the weight of a node is highest, when the least go first."""
    weight = 1 / np.log(np.bincount(value, minlength=values) + DAMPING)
    both, size = np.concatenate((account, accounts + value)), accounts + values
    order = np.argsort(both, kind="stable")
    ends = np.searchsorted(both[order], np.arange(size + 1)).tolist()
    other, of_edge = (
        np.concatenate((accounts + value, account))[order].tolist(),
        np.tile(weight[value], 2)[order].tolist(),
    )
    degree = np.bincount(both, np.tile(weight[value], 2), size).tolist()
    heap, there = [(d, node) for node, d in enumerate(degree)], [True] * size
    heapq.heapify(heap)
    taken: list[int] = []
    total, best, at = sum(degree) / 2, 0.0, 0
    for left in range(size, 0, -1):
        if total / left > best:
            best, at = total / left, len(taken)
        while True:
            d, node = heapq.heappop(heap)
            if there[node] and d == degree[node]:
                break
        there[node] = False
        taken.append(node)
        total -= degree[node]
        for edge in range(ends[node], ends[node + 1]):
            if there[other[edge]]:
                degree[other[edge]] -= of_edge[edge]
                heapq.heappush(heap, (degree[other[edge]], other[edge]))
    block = np.zeros(size, dtype=np.bool_)
    block[taken[at:]] = best > 0
    return block


FINDERS: dict[str, Callable[[Sequence[Held], int], Members]] = {
    "ours": ours,
    "near-duplicates, connected": near_duplicates,
    "FRAUDAR": fraudar,
}


def score(found: Members, campaign: Sequence[str | None]) -> dict[str, Any]:
    """How well groups are the campaigns that N accounts are of, None for no campaign.

    Returns:
        counts: groups; `pure`, the sum over the groups of the share that the most frequent campaign has in each; and
        for each of LEAST, of campaigns of at least so many accounts: `members` there are, `hits` of them found, and
        `named`, all accounts that are found but for those of smaller campaigns.
    """
    size = Counter(name for name in campaign if name is not None)
    of = np.array([size[name] if name is not None else 0 for name in campaign])
    is_found = np.zeros(len(of), dtype=np.bool_)
    is_found[np.concatenate([np.zeros(0, dtype=np.int64), *found])] = True
    most = [Counter(campaign[i] for i in group.tolist() if campaign[i] is not None).most_common(1) for group in found]
    pure = sum(top[0][1] / len(group) for top, group in zip(most, found, strict=True) if top)
    counts: dict[str, Any] = {"groups": len(found), "pure": pure}
    for least in LEAST:
        counts[str(least)] = {
            "members": int((of >= least).sum()),
            "hits": int((is_found & (of >= least)).sum()),
            "named": int((is_found & ((of == 0) | (of >= least))).sum()),
        }
    return counts


def groups(log: Log, labels: Labels, out: Path, advance: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """What each of FINDERS finds of campaigns among the genuine users, in the log as it is and in its items alone.

    Writes `out/cells/NAME.json` as each is done, then `out/groups.json` and `out/groups.html`.

    Args:
        advance: is called with a few words after each cell.
    """
    kept = keeper(out, {"data": fingerprint(log, labels)}, advance)
    result = _found(log.subset(np.flatnonzero(labels.known & (labels.label == 0))), kept)
    (out / "groups.json").write_text(json.dumps(result, indent=1))
    (out / "groups.html").write_text(page(result))
    return result


def page(result: dict[str, Any]) -> str:
    """The page of what `groups` returns."""
    return pages.render("groups.html.j2", result=result)


def _found(genuine: Log, kept: Kept) -> dict[str, Any]:
    items = [name for name in ("sequence_id", "item_id", "action") if name in genuine.events.columns]
    settings = {"as it is": genuine, "items alone": Log.of(genuine.events.select(items), genuine.reading)}
    rows, clean = [], []
    for words, log in settings.items():
        known = Catalogue(log, InjectConfig(), np.random.default_rng(0))
        slug = words.replace(" ", "-")
        for kind in (k for k in KINDS if not lacking(k, known)):
            cells = [
                kept(f"groups-{slug}-{kind}-{seed}", partial(_campaigns, log, kind, seed)) for seed in range(SEEDS)
            ]
            rows += [
                {"log": words, "kind": kind, "finder": name, **_pooled([c[name] for c in cells])} for name in FINDERS
            ]
        for surge in ("none", *SURGES):
            found = kept(f"groups-{slug}-{surge}", partial(_clean, log, surge))
            clean.append({"log": words, "surge": surge, **found})
    return {"seeds": SEEDS, "rows": rows, "clean": clean}


def _campaigns(log: Log, kind: str, seed: int) -> dict[str, Any]:
    """What each finder finds of the campaigns of one kind."""
    events, labels, _ = inject(log, None, InjectConfig(size=SIZE, campaigns=SIZES, seed=seed), [kind])
    poisoned = Log.of(events.drop("event_label"), log.reading)
    _, _, histories = read(poisoned)
    of = dict(labels.select("sequence_id", "campaign").iter_rows())
    campaign = [of[name] for name in poisoned.ids]
    number = labels["campaign"].drop_nulls().n_unique()
    return {name: score(find(histories, number), campaign) for name, find in FINDERS.items()}


def _clean(log: Log, surge: str) -> dict[str, Any]:
    """Groups and members that are found where there is no campaign."""
    if surge != "none":
        log = with_surges(log, [True] * len(log), [surge], 0)[0]
    _, _, histories = read(log)
    found = ours(histories, 0)
    return {"groups": len(found), "members": sum(map(len, found))}


def _pooled(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Precision, recall and purity over several logs."""
    number = sum(c["groups"] for c in cells)
    shares: dict[str, Any] = {"groups": number, "purity": sum(c["pure"] for c in cells) / number if number else None}
    for least in LEAST:
        hits, named, members = (sum(c[str(least)][name] for c in cells) for name in ("hits", "named", "members"))
        shares[f"precision_{least}"], shares[f"recall_{least}"] = rate(hits, named), rate(hits, members)
    return shares
