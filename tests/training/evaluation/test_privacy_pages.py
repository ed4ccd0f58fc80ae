from typing import Any

from tests.support.html import Page
from training.evaluation.privacy_pages import render, verdict

SCRIPT = "<script>alert('x')</script>"


def attack(share: float | None) -> dict[str, Any]:
    told = None if share is None else [share, share * 0.8, share * 1.2]
    return {
        "auc": [0.56, 0.53, 0.59],
        "found": {"0.001": told},
        "curve": [[0.001, share or 0.0], [0.1, 0.15], [1.0, 1.0]],
    }


def found(share: float | None, count: int) -> dict[str, Any]:
    return {
        "bundle": {"name": "shop", "version": "v1", "min_holders": 2},
        "members": 303,
        "strangers": 12075,
        "held_back": 75,
        "split": "time",
        "least_rate": 10 / 12075,
        "rates": ["0.001"],
        "shadow_models": 8,
        "attacks": {"loss": attack(share), "shadow models": attack(share)},
        "holders": 5,
        "named": [{"file": "crowd.npz", "what": "keys of identifiers", "count": count, "examples": [SCRIPT][:count]}],
    }


def test_the_page_says_how_the_attacks_went_and_what_is_named() -> None:
    text = render(found(0.0066, 1))
    page = Page(text)
    assert page.plots == 1
    assert ["crowd.npz", "keys of identifiers", SCRIPT, "1"] in page.rows
    assert "--min-holders 5" in text
    assert "Nothing was found" in render(found(0.0066, 0))


def test_the_verdict_is_as_sure_as_the_figures() -> None:
    assert verdict(found(0.3, 0)).startswith("The scores tell of some who was in training")
    assert verdict(found(0.0011, 0)).startswith("The scores hardly tell")
    assert "too few" in verdict(found(None, 0))
    assert "too few strangers" in render(found(None, 0))
