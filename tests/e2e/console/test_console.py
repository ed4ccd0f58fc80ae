"""What holds for every view: its weight, its markup, its key, who can use it, and when it asks again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.api.routes.console import OF_CONSOLE, PAGES
from tests.support.browser import axe, seen_as, texts, violations
from tests.support.console import HOSTILE, KEY, SCORER, VIEWS, complaints, put, says
from tests.support.processes import wait_until
from tests.support.service import Service

MOST_BYTES, MOST_PAINT = 300_000, 1000.0  # of the page with its parts, and milliseconds until it shows something


def test_the_page_is_small_soon_there_and_loads_nothing_from_elsewhere(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    page = desk.client.get("/console")
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in page.headers["content-security-policy"]
    assert "http" not in page.text
    parts = [*OF_CONSOLE.values(), PAGES / "console.html"]
    assert sum(part.stat().st_size for part in parts) < MOST_BYTES
    assert {part.suffix for part in OF_CONSOLE.values()} == {".css", ".js"}
    for name in OF_CONSOLE:
        assert desk.client.get(f"/console/{name}").status_code == 200
    assert desk.client.get("/console/..%2Fapp.py").status_code == 404
    assert desk.client.get("/console/app.py").status_code == 404
    for view in VIEWS:
        visit(view)
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert loaded
        assert all(name.startswith(str(desk.client.base_url)) for name in loaded)
        assert browser.execute_script("return document.querySelectorAll('[style*=url]').length") == 0
    paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    wait_until(lambda: browser.execute_script(paint) is not None)
    assert browser.execute_script(paint) < MOST_PAINT
    assert complaints(browser) == []


def test_nothing_is_asked_while_nobody_looks(browser: Any, visit: Callable[..., None]) -> None:
    visit("now")
    asked = "return performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/v1/now')).length"
    hide = """
        window.timers = [];
        window.real ??= window.setTimeout;
        window.setTimeout = (work, time) => { window.timers.push(time); return window.real(work, time); };
        Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));"""
    browser.execute_script(hide, True)
    browser.execute_script("location.hash = '#drift'")
    wait_until(lambda: bool(browser.find_elements("css selector", VIEWS["drift"])))
    browser.execute_script("location.hash = '#now'")
    wait_until(lambda: bool(browser.find_elements("css selector", VIEWS["now"])))
    assert browser.execute_script("return window.timers.filter((time) => time >= 1000)") == []
    before = browser.execute_script(asked)
    browser.execute_script(hide, False)
    wait_until(lambda: browser.execute_script(asked) == before + 1)
    wait_until(lambda: browser.execute_script("return window.timers.filter((time) => time >= 1000).length") == 1)


def test_what_comes_from_a_log_is_text_and_never_markup(browser: Any, visit: Callable[..., None]) -> None:
    visit("campaigns", "#members td")
    assert says(browser, "#members td", HOSTILE)
    assert says(browser, "#pushed td", HOSTILE)
    visit("account")
    events = [{"ts": 1.7e9 + 60 * k, "action": HOSTILE, "item_id": HOSTILE, "category": HOSTILE} for k in range(3)]
    put(browser, {"id": HOSTILE, "events": events})
    wait_until(lambda: says(browser, ".account", HOSTILE))
    browser.execute_script("document.querySelector('#events circle').dispatchEvent(new PointerEvent('pointerenter'))")
    assert says(browser, "#event", f"item_id {HOSTILE}")
    assert browser.find_elements("css selector", "main img") == []
    assert browser.title == "Account · recguard"


def test_a_view_that_the_key_may_not_use_says_so_and_the_others_work(browser: Any, visit: Callable[..., None]) -> None:
    for view, scope in (
        ("now", "metrics or admin"),
        ("queue", "review"),
        ("campaigns", "review"),
        ("drift", "metrics"),
    ):
        visit(view, ".problem:not(:empty)", key=SCORER)
        assert says(browser, ".problem", "403: the key scorer does not allow this; it needs the scope " + scope)
    visit("thresholds", "#force", key=SCORER)
    wait_until(lambda: says(browser, ".problem", "403: the key scorer"))
    assert browser.find_elements("id", "apply") == []
    visit("account", key=SCORER)
    browser.find_element("css selector", "#samples button").click()
    wait_until(lambda: texts(browser, "#legend") != [])
    assert complaints(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_with_disabilities_can_use_every_view(
    browser: Any, tmp_path: Path, scheme: str, visit: Callable[..., None]
) -> None:
    source, found = axe(tmp_path), {}
    with seen_as(browser, scheme):
        for view in VIEWS:
            visit(view, "#verdict" if view == "queue" else "")
            if view == "account":
                browser.find_element("css selector", "#samples button").click()
                wait_until(lambda: texts(browser, "#legend") != [])
            found[view] = violations(browser, source)
    assert found == {view: [] for view in VIEWS}


def test_a_phone_scrolls_in_one_direction_only(browser: Any, visit: Callable[..., None]) -> None:
    with seen_as(browser, width=390):
        for view in VIEWS:
            visit(view, "#verdict" if view == "queue" else "")
            if view == "account":
                browser.find_element("css selector", "#samples button").click()
                wait_until(lambda: texts(browser, "#legend") != [])
            assert browser.execute_script("return document.documentElement.scrollWidth") == 390, view


def test_the_link_past_the_menu_leaves_the_view_and_its_address(browser: Any, visit: Callable[..., None]) -> None:
    visit("drift", ".problem:not(:empty)", key="")
    browser.find_element("css selector", ".skip").send_keys("\n")
    wait_until(lambda: browser.switch_to.active_element.get_attribute("id") == "view")
    assert browser.current_url.endswith("#drift")
    browser.find_element("id", "key").send_keys(KEY + "\n")
    wait_until(lambda: bool(browser.find_elements("css selector", VIEWS["drift"])))


def test_an_address_that_nobody_can_read_is_refused_in_words(browser: Any, visit: Callable[..., None]) -> None:
    visit("account/%zz", ".problem:not(:empty)")
    assert says(browser, ".problem", "422")
    visit("constructor", VIEWS["now"])
    assert complaints(browser) == []


@pytest.mark.parametrize(
    ("view", "selector"),
    [
        ("now", ".scroll"),
        ("queue", "#queue li:nth-child(2) button"),
        ("campaigns", "#campaigns button"),
        ("drift", "#fields summary"),
    ],
)
def test_the_keyboard_stays_where_it_was_when_a_view_is_read_again(
    browser: Any, view: str, selector: str, visit: Callable[..., None]
) -> None:
    visit(view, "#verdict" if view == "queue" else selector)
    browser.execute_script(
        """
        window.before = document.querySelector(arguments[0]);
        window.before.focus();
        document.dispatchEvent(new Event("visibilitychange"));""",
        selector,
    )
    wait_until(lambda: not browser.execute_script("return window.before.isConnected"))
    name = "(one) => one.getAttribute('aria-label') ?? one.dataset.of"
    same = f"const name = {name}; return [name(window.before), name(document.activeElement)]"
    before, now = browser.execute_script(same)
    assert before == now is not None
