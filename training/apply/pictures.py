"""What is drawn of campaigns: who holds what, and when what is pushed was taken up."""

from collections import Counter
from typing import Any

import numpy as np

from training.apply.campaigns import Found
from training.apply.groups import Group

DRAWN = 20  # campaigns
MEMBERS, OTHERS, PUSHED, BESIDE = 60, 20, 20, 20  # rows and columns of a picture


def pictures(found: Found) -> list[dict[str, Any]]:
    """What is drawn of each of the first campaigns, see `campaign_pages.render`."""
    return [_picture(found, group) for group in found.groups[:DRAWN]]


def _picture(found: Found, group: Group) -> dict[str, Any]:
    keys = list(dict.fromkeys(p.key for p in group.pushed))
    members = set(group.members.tolist())
    others = [i for i, held in enumerate(found.histories) if i not in members and np.isin(held.keys, keys).any()]
    drawn = [*group.members[:MEMBERS].tolist(), *others[:OTHERS]]
    also = Counter(key for i in members for key in set(found.histories[i].keys.tolist()) - set(keys))
    shown = [*keys[:PUSHED], *(key for key, _ in sorted(also.items(), key=lambda kept: (-kept[1], kept[0]))[:BESIDE])]
    holders = [*members, *others]
    return {
        "values": [" ".join(found.name(key, holders)) for key in shown],
        "pushed": len(keys[:PUSHED]),
        "held": np.array([np.isin(shown, found.histories[i].keys) for i in drawn]),
        "members": min(len(members), MEMBERS),
        "times": [_times(found, some, keys) for some in (members, others)],
    }


def _times(found: Found, accounts: set[int] | list[int], keys: list[int]) -> list[float]:
    """When the accounts took up any of the values, in epoch seconds."""
    return [t for i in accounts for t in _of(found, i, keys) if not np.isnan(t)]


def _of(found: Found, account: int, keys: list[int]) -> list[float]:
    held = found.histories[account]
    times: list[float] = held.ts[np.isin(held.keys, keys)].tolist()
    return times
