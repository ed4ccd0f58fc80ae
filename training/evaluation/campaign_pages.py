"""The page of the campaigns of a log, with a picture of who holds what and of what was taken up when."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from training.evaluation import pages, plots
from training.evaluation.words import brief

MOST = 12  # rows of a table of one campaign
LETTERS = 30  # of a value beside a picture
BINS = 60  # of time
DAY = 86400.0  # seconds


def render(found: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]], name: str) -> str:
    """The page of the campaigns of the log of that name.

    Args:
        found: what `campaigns.to_json` gives.
        pictures: of each of the first campaigns, the names of V `values`, what is pushed first and how many that are
            (`pushed`), bool (A, V) `held`, how many of these accounts are `members`, which come first, and the `times`
            at which members and others took up what is pushed, in epoch seconds.
    """
    drawn = [[_who_holds_what(p), *([_when(p)] if any(map(len, p["times"])) else [])] for p in pictures]
    return pages.render("campaigns.html.j2", found=found, pictures=drawn, name=name, most=MOST)


def _who_holds_what(picture: Mapping[str, Any]) -> Markup:
    """Accounts by values: members in red above the line, others below it."""
    plot, axes = plots.figure("Who holds what", "pushed | also held", "accounts: members above")
    y, x = np.nonzero(picture["held"])
    member = y < picture["members"]
    for some, color in ((member, plots.ANOMALOUS), (~member, plots.NORMAL)):
        axes.scatter(x[some], y[some], s=6, marker="s", color=color, linewidths=0)
    axes.axhline(picture["members"] - 0.5, color="#999999", linewidth=1)
    axes.axvline(picture["pushed"] - 0.5, color="#999999", linewidth=1)
    axes.set(ylim=(len(picture["held"]) - 0.5, -0.5), xlim=(-0.5, len(picture["values"]) - 0.5), yticks=[])
    words = [brief(value, LETTERS) for value in picture["values"]]
    axes.set_xticks(range(len(words)), words, rotation=90, size=5, parse_math=False)
    return plots.svg(plot)


def _when(picture: Mapping[str, Any]) -> Markup:
    """How often what is pushed was taken up over time, by members and by others."""
    plot, axes = plots.figure("When what is pushed was taken up", "", "events")
    days = [np.array(times) / DAY for times in picture["times"]]
    edges = np.histogram_bin_edges(np.concatenate(days), BINS)
    axes.hist(
        days, bins=edges.tolist(), stacked=True, color=[plots.ANOMALOUS, plots.NORMAL], label=["members", "others"]
    )
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)
