"""The page that says what a bundle gives away of the accounts it was fitted on, with a picture of the attacks."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from training.evaluation import pages, plots

COLOURS = (plots.ANOMALOUS, plots.NORMAL)
CLEARLY = 2  # times the share of strangers; members who are found more often than that are told apart


def render(found: Mapping[str, Any]) -> str:
    """The page of what `privacy.privacy` gives."""
    drawn = [_roc(found)] if any(of["curve"] for of in found["attacks"].values()) else []
    return pages.render("privacy.html.j2", found=found, plots_of_attacks=drawn, verdict=verdict(found))


def verdict(found: Mapping[str, Any]) -> str:
    """How well the attacks went, in words."""
    rate = next((rate for rate in found["rates"] if found["attacks"]["loss"]["found"][rate]), None)
    if rate is None:
        return (
            f"{found['strangers']:,} strangers are too few to say how many members an attacker is sure of: name a log "
            "of further accounts with --others."
        )
    best = max((of["found"][rate] for of in found["attacks"].values()), key=lambda share: float(share[0]))
    what = f"where {float(rate):.1%} of strangers are taken for members, the best attack finds {best[0]:.2%} of members"
    told = best[1] > CLEARLY * float(rate)
    said = "The scores tell of some who was in training" if told else "The scores hardly tell who was in training"
    return f"{said}: {what} ({best[1]:.2%} to {best[2]:.2%})."


def _roc(found: Mapping[str, Any]) -> Markup:
    """Members found against strangers taken for members, on logarithmic axes: what counts is at the left."""
    plot, axes = plots.figure("Who is found", "strangers taken for members", "members found")
    axes.plot([found["least_rate"], 1], [found["least_rate"], 1], color="#bbbbbb", linewidth=1, label="chance")
    for (name, attack), colour in zip(found["attacks"].items(), COLOURS, strict=False):
        rates, shares = zip(*(point for point in attack["curve"] if point[1] > 0), strict=True)
        axes.plot(rates, shares, color=colour, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    return plots.svg(plot)
