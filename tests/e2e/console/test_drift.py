"""The view of what has moved since training."""

from collections.abc import Callable
from typing import Any

from tests.support.browser import texts
from tests.support.console import says
from tests.support.service import Service


def test_what_moved_is_shown_value_by_value(desk: Service, browser: Any, visit: Callable[..., None]) -> None:
    moved = desk.client.get("/v1/drift").json()["fields"]
    assert moved[0]["psi"] == max(field["psi"] for field in moved)
    visit("drift")
    assert len(texts(browser, "#fields summary")) == len(moved)
    assert texts(browser, "#fields summary")[0].startswith(moved[0]["field"])
    assert says(browser, "#fields summary", f"PSI {moved[0]['psi']:.2f}")
    changed = max(moved[0]["values"], key=lambda value: abs(value["now"] - value["expected"]))
    way = "rose" if changed["now"] > changed["expected"] else "fell"
    assert f"{way} from" in texts(browser, "#fields summary")[0]
    assert len(browser.find_elements("css selector", "#fields .strip")) == 2 * len(moved)
