"""The view in which thresholds are tried and put in force."""

from collections.abc import Callable
from typing import Any

from tests.support.browser import texts
from tests.support.console import complaints, says
from tests.support.processes import wait_until
from tests.support.service import Service


def test_thresholds_are_tried_put_in_force_with_a_note_and_audited(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    before = desk.client.get("/v1/thresholds").json()
    visit("thresholds")
    assert says(browser, "#force", "review 10 %, block 5 %")
    browser.execute_script("""
        const exact = document.getElementById("exact-review");
        exact.value = "0.2";
        exact.dispatchEvent(new Event("change"));""")
    tried = desk.client.post("/v1/thresholds/preview", json={"review_rate": 0.2, "block_rate": 0.05}).json()
    now, then = (f"{100 * tried[which]['review']:.3g} %" for which in ("now", "then"))
    wait_until(lambda: says(browser, "#effect", f"Reviewed\t{now}\t{then}"))
    browser.find_element("id", "note").send_keys("a sale begins")
    browser.find_element("id", "apply").click()
    wait_until(lambda: says(browser, "#applied", "In force now: review 20 %, block 5 %"))
    found = desk.client.get("/v1/thresholds").json()
    assert (found["review_rate"], found["block_rate"], found["source"]) == (0.2, 0.05, "override")
    wait_until(lambda: says(browser, "#audit tbody tr", "a sale begins"))
    row = texts(browser, "#audit tbody tr")[0]
    assert "analyst" in row
    assert "from review 10 %, block 5 % to review 20 %, block 5 %" in row
    back = {name: before[name] for name in ("review_rate", "block_rate", "segments")}
    desk.client.put("/v1/thresholds", json=back).raise_for_status()
    assert complaints(browser) == []


def test_what_a_colleague_has_put_in_force_meanwhile_is_not_overwritten(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    before = {"review_rate": 0.1, "block_rate": 0.05, "segments": {}}
    desk.client.put("/v1/thresholds", json=before).raise_for_status()
    visit("thresholds")
    theirs = {**before, "segments": {"new": {"review": 0.5, "block": 0.9}}}
    desk.client.put("/v1/thresholds", json=theirs).raise_for_status()
    browser.find_element("id", "apply").click()
    wait_until(lambda: says(browser, ".problem", "409: other thresholds were put in force meanwhile"))
    assert desk.client.get("/v1/thresholds").json()["segments"] == theirs["segments"]
    wait_until(lambda: says(browser, ".card td", "new"))
    browser.find_element("id", "apply").click()
    wait_until(lambda: says(browser, "#applied", "In force now"))
    assert desk.client.get("/v1/thresholds").json()["segments"] == theirs["segments"]
    assert complaints(browser) == []
    desk.client.put("/v1/thresholds", json=before).raise_for_status()
