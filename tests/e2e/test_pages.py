"""What a browser finds: pages with their policy, documentation without the internet, doors for our own pages."""

from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.problems import assert_problem
from tests.support.processes import wait_until
from tests.support.service import Service, Starter

CHANGES = [
    ("POST", "/v1/model/promote"),
    ("POST", "/v1/model/reload"),
    ("PUT", "/v1/model/challenger"),
    ("PUT", "/v1/thresholds"),
    ("POST", "/v1/thresholds/preview"),
    ("DELETE", "/v1/events?key=u"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/feedback/undo"),
    ("GET", "/v1/review"),
    ("GET", "/v1/review/progress"),
    ("GET", "/v1/audit"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Host": "rebound.example"}])
def test_a_page_of_another_site_changes_and_reads_nothing(
    service: Service, method: str, path: str, headers: dict[str, str]
) -> None:
    assert_problem(service.client.request(method, path, headers=headers), 403, "")


def test_a_form_changes_nothing(service: Service) -> None:
    answer = service.client.post("/v1/model/promote", data={"a": "b"})
    assert_problem(answer, 415, "application/x-www-form-urlencoded")


def test_probes_scrapes_and_scoring_take_any_host(service: Service, some: list[dict[str, Any]]) -> None:
    host = {"Host": "10.1.2.3:8080"}
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/model", "/docs", "/console", "/"):
        assert service.client.get(path, headers=host).status_code == 200, path
    assert service.client.post("/v1/score", json={"sequences": some[:1]}, headers=host).status_code == 200


def test_a_name_of_the_service_is_a_setting(start_service: Starter, bundle: Bundle) -> None:
    service = start_service(bundle.path, hosts="desk.example, other.example")
    own = {"Host": "desk.example", "Origin": "https://desk.example"}
    assert service.client.get("/v1/review", headers=own).status_code == 200
    assert_problem(service.client.get("/v1/review", headers={"Host": "third.example"}), 403, "RECGUARD_HOSTS")


def test_pages_say_what_they_may_load_and_name_nothing_elsewhere(service: Service) -> None:
    for path in ("/", "/console", "/docs"):
        page = service.client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'; script-src 'self';" in page.headers["content-security-policy"]
        assert "//" not in page.text.replace("<!doctype html>", ""), "all that it loads is the service's own"
    for path in ("/docs/index.html", "/docs/..%2Fauth.py", "/console/none.js", "/docs/oauth2-redirect"):
        assert service.client.get(path).status_code == 404


def test_the_documentation_shows_every_operation(service: Service, browser: Any) -> None:
    browser.get(f"{service.client.base_url}/docs")
    described = service.client.get("/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in described.values())
    wait_until(lambda: len(browser.find_elements("css selector", ".opblock")) == operations)
    refused = [line for line in browser.get_log("browser") if "Content Security Policy" in line["message"]]
    assert not refused


def test_the_first_page_leads_on(service: Service, browser: Any) -> None:
    browser.get(str(service.client.base_url))
    links = [a.get_attribute("href") for a in browser.find_elements("css selector", "main a")]
    assert len(links) >= 4
    for link in links:
        assert service.client.get(link).status_code == 200, link
