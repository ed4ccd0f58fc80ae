"""The view of accounts that act together."""

from collections.abc import Callable
from typing import Any

from tests.support.browser import texts
from tests.support.console import complaints
from tests.support.processes import wait_until


def test_a_verdict_on_a_campaign_is_heard_and_leaves_the_keyboard_on_its_button(
    browser: Any, visit: Callable[..., None]
) -> None:
    visit("campaigns")
    browser.execute_script("window.told = document.getElementById('agreed')")
    for verdict in ("anomalous", "normal"):
        browser.find_element("css selector", f"[data-all={verdict}]").send_keys("\n")
        wait_until(lambda said=f"Called {verdict}.": any(said in text for text in texts(browser, "#campaign .row")))
        assert browser.execute_script("return window.told.isConnected"), "only an element that stays is read out"
        assert texts(browser, "#agreed")[0].startswith(f"recorded: {verdict}, on ")
        assert browser.switch_to.active_element.get_attribute("data-all") == verdict
    assert complaints(browser) == []
