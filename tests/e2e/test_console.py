"""The console in a real browser."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.browser import texts
from tests.support.logs import sequences
from tests.support.processes import wait_until
from tests.support.service import Service, Starter, bearer, sample, score

KEY = "analyst-0123456789"
TOLD = [(label, d) for label in ("anomalous", "normal") for d in ("allow", "review", "block")]


@pytest.fixture(scope="module")
def guarded(start_service: Starter, bundle: Bundle) -> Service:
    return start_service(bundle.path, api_keys=f"analyst:score+metrics+review:{KEY}")


def problem_says(browser: Any, words: str) -> bool:
    return words in texts(browser, "#problem")[0]


def test_an_analyst_scores_a_sequence_and_takes_events_out(
    guarded: Service, browser: Any, attacked: Path, tmp_path: Path
) -> None:
    browser.get(f"{guarded.client.base_url}/console")
    wait_until(lambda: "401" in texts(browser, "#problem")[0])
    browser.find_element("id", "key").send_keys(KEY + "\n")
    wait_until(lambda: len(texts(browser, "#samples button")) > 0)
    assert "test" in texts(browser, "#model")[0]

    given = sequences(attacked / "events.csv", 300)
    guarded.client.headers.update(bearer(KEY))
    results = score(guarded, {"sequences": given, "repair": True}).json()["results"]
    dropped = [r["decision"] == "block" and r["repair"]["strategy"].startswith("drop") for r in results]
    at = next(i for i, r in enumerate(results) if dropped[i] and 4 < len(r["events"]) < 60)
    field = browser.find_element("id", "input")
    browser.execute_script("arguments[0].value = arguments[1]", field, json.dumps(given[at]))
    browser.find_element("id", "score").click()
    wait_until(lambda: texts(browser, "#decision") == ["block"])
    shown = float(texts(browser, "#value")[0])
    assert shown == pytest.approx(results[at]["score"], abs=1e-3)
    bars = browser.find_elements("css selector", "#events button")
    assert len(bars) == len(given[at]["events"])
    assert len(texts(browser, "#reasons tbody tr")) > 0
    wait_until(lambda: len(browser.find_elements("css selector", "#without i")) == len(bars))

    assert texts(browser, "#advice")[0].startswith("drop")
    bars[0].click()
    left = {**given[at], "events": given[at]["events"][1:]}
    expected = score(guarded, {"sequences": [left]}).json()["results"][0]
    wait_until(lambda: "1 event taken out" in texts(browser, "#removed")[0])
    assert texts(browser, "#removed")[0].endswith(f"{expected['decision']}.")
    assert "#1, score" in texts(browser, "#event")[0]
    bars[0].click()
    wait_until(lambda: texts(browser, "#removed") == [""])

    browser.find_element("css selector", "[data-verdict=anomalous]").click()
    wait_until(lambda: texts(browser, "#said") == ["recorded: anomalous, where the decision is block"])

    scored = str(len(given) + 1)  # what is tried on the page is not counted
    wait_until(lambda: f"{scored}\nscored" in texts(browser, "#counters div"))
    assert browser.save_screenshot(str(tmp_path / "console.png"))
    serious = [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
    assert [entry["message"] for entry in serious if "401" not in entry["message"]] == []


def test_a_bad_sequence_is_said_in_words(guarded: Service, browser: Any) -> None:
    browser.get(f"{guarded.client.base_url}/console")
    for text, says in (("{", "JSON"), ('{"events": []}', "/sequences/0/events")):
        field = browser.find_element("id", "input")
        browser.execute_script("arguments[0].value = arguments[1]", field, text)
        browser.find_element("id", "score").click()
        wait_until(partial(problem_says, browser, says))


def test_the_page_may_load_nothing_from_elsewhere(guarded: Service) -> None:
    page = guarded.client.get("/console")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("console.js", "console.css"):
        assert guarded.client.get(f"/console/{name}").status_code == 200
    assert guarded.client.get("/console/..%2Fapp.py").status_code == 404
    assert guarded.client.get("/console/app.py").status_code == 404


def test_an_analyst_works_through_the_queue_by_key(
    start_service: Starter, bundle: Bundle, browser: Any, attacked: Path
) -> None:
    service = start_service(bundle.path, review_share=1)
    given = sequences(attacked / "events.csv", 6)
    score(service, {"sequences": given})
    waiting = service.client.get("/v1/review").json()["answers"]
    assert len(waiting) == 6
    browser.get(f"{service.client.base_url}/console")
    wait_until(lambda: "6 wait" in texts(browser, "#open")[0])
    browser.find_element("id", "next").click()
    wait_until(lambda: texts(browser, "#decision") == [waiting[0]["decision"]])

    def press(key: str) -> None:
        browser.find_element("tag name", "body").send_keys(key)

    press("a")
    wait_until(lambda: texts(browser, "#said")[0].startswith("recorded: anomalous"))
    wait_until(lambda: "5 wait" in texts(browser, "#open")[0])
    press("s")
    wait_until(lambda: "4 wait" in texts(browser, "#open")[0])
    wait_until(lambda: texts(browser, "#said") == [""])
    press("n")
    wait_until(lambda: "3 wait" in texts(browser, "#open")[0])
    verdicts = [sample(service, "recguard_feedback_total", label=label, decision=d) for label, d in TOLD]
    assert sum(verdicts) == 2
    left = {a["score_id"] for a in service.client.get("/v1/review").json()["answers"]}
    assert len(left) == 4, "what was skipped still waits"
    assert waiting[0]["score_id"] not in left


def test_what_moved_is_shown_value_by_value(
    start_service: Starter, bundle: Bundle, browser: Any, attacked: Path
) -> None:
    service = start_service(bundle.path)
    given = [
        {**s, "events": [{**e, "category": "c3"} for e in s["events"]]} for s in sequences(attacked / "events.csv", 250)
    ]
    score(service, {"sequences": given})
    assert sample(service, "recguard_field_drift_psi", field="category") > 0.25
    moved = service.client.get("/v1/drift").json()["fields"]
    assert moved[0]["psi"] == max(field["psi"] for field in moved) > 0.25
    browser.get(f"{service.client.base_url}/console")
    wait_until(lambda: len(texts(browser, "#samples button")) > 0)  # until then the page moves under the click
    browser.find_element("css selector", "#drift summary").click()
    wait_until(lambda: any(text.startswith("category, PSI") for text in texts(browser, "#fields .major")))
    assert len(texts(browser, "#fields .strip")) == 2 * len(moved)


@pytest.mark.parametrize("segment", ["constructor", "__proto__"])
def test_a_segment_may_have_any_name(service: Service, browser: Any, some: list[dict[str, Any]], segment: str) -> None:
    browser.get(f"{service.client.base_url}/console")
    wait_until(lambda: len(texts(browser, "#samples button")) > 0)
    field = browser.find_element("id", "input")
    browser.execute_script("arguments[0].value = arguments[1]", field, json.dumps({**some[0], "segment": segment}))
    browser.find_element("id", "score").click()
    wait_until(lambda: texts(browser, "#legend")[0].startswith("review from "))
    assert "NaN" not in texts(browser, "#legend")[0]


def test_an_exempt_account_is_said(guarded: Service, browser: Any, some: list[dict[str, Any]]) -> None:
    guarded.client.headers.update(bearer(KEY))
    decided = score(guarded, {"sequences": some}).json()["results"]
    sequence, flagged = next((s, r) for s, r in zip(some, decided, strict=True) if r["decision"] == "block")
    body = {"score_id": flagged["score_id"], "verdict": "normal"}
    until = guarded.client.post("/v1/feedback", json=body).raise_for_status().json()["exempt_until"]
    wait_until(lambda: sample(guarded, "recguard_exemptions") == 1)
    browser.get(f"{guarded.client.base_url}/console")
    field = browser.find_element("id", "input")
    browser.execute_script("arguments[0].value = arguments[1]", field, json.dumps(sequence))
    browser.find_element("id", "score").click()
    wait_until(lambda: texts(browser, "#decision") == ["allow"])
    day = datetime.fromtimestamp(until, UTC).date().isoformat()
    assert texts(browser, "#type") == [f"called genuine, until {day}: the thresholds say block"]
