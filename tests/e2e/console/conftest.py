"""A service with something to show in every view, and the way to a view."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.console import KEY, RING, SCORER, VIEWS, ring_of
from tests.support.logs import genuine_log, sequences
from tests.support.processes import wait_until
from tests.support.service import Service, Starter, bearer, score


@pytest.fixture(scope="session")
def desk(start_service: Starter, bundle: Bundle, attacked: Path) -> Service:
    """A service that has seen genuine accounts, attackers, and accounts that act together, with keys for two people."""
    keys = f"analyst:score+metrics+review+admin:{KEY},scorer:score:{SCORER}"
    service = start_service(
        bundle.path, api_keys=keys, review_share=1, crowd=True, campaign_seconds=0.5, log_ids=True, timeout_ms=20_000
    )
    service.client.headers.update(bearer(KEY))
    rows = genuine_log(200 + RING, seed=7).partition_by("sequence_id", maintain_order=True)
    people = [{"id": f"u{k}", "events": one.drop("sequence_id").to_dicts()} for k, one in enumerate(rows)]
    for k in range(RING, len(people), 50):
        score(service, {"sequences": people[k : k + 50]}).raise_for_status()
    score(service, {"sequences": [{**s, "segment": "new"} for s in sequences(attacked / "events.csv", 300)[240:]]})
    for one in ring_of(people):
        score(service, {"sequences": [one]}).raise_for_status()
    wait_until(lambda: bool(service.client.get("/v1/campaigns").json()["campaigns"]))
    return service


@pytest.fixture
def visit(desk: Service, browser: Any) -> Callable[..., None]:
    """Opens a view with a key, and waits until an element is there."""

    def go(view: str, until: str = "", key: str = KEY) -> None:
        browser.get(f"{desk.client.base_url}/")
        browser.execute_script("sessionStorage.setItem('key', arguments[0])", key)
        browser.get(f"{desk.client.base_url}/console#{view}")
        wait_until(lambda: bool(browser.find_elements("css selector", until or VIEWS[view])))

    return go
