"""The view of the last hour."""

from collections.abc import Callable
from typing import Any

from tests.support.browser import texts
from tests.support.console import says
from tests.support.processes import wait_until
from tests.support.service import Service, sample


def test_now_tells_traffic_decisions_the_promise_and_the_model(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    visit("now")
    now = desk.client.get("/v1/now").json()
    scored = sum(now["decisions"].values())
    assert scored == sum(sample(desk, "recguard_sequences_total", decision=d) for d in ("allow", "review", "block"))
    wait_until(lambda: says(browser, ".tile", f"{scored}\nscored since the start"))
    assert says(browser, ".tile", "1\nworker serves")
    assert len(texts(browser, "figure svg")) == 6
    assert says(browser, ".card", "reviewed or blocked\t10 %")
    assert says(browser, "dd", f"test {desk.client.get('/v1/model').json()['version']}")
    for alert in now["alerts"]:
        assert says(browser, "#alerts", alert["name"])
    assert says(browser, ".quiet", "Only Prometheus can tell RecguardDown")
