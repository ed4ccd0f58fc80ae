"""The view of one account: a sequence scored, looked into and judged."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import texts
from tests.support.console import KEY, complaints, put, says
from tests.support.logs import genuine_log, sequences
from tests.support.processes import wait_until
from tests.support.service import Service, sample, score


def test_an_analyst_scores_a_sequence_and_takes_events_out(
    desk: Service, browser: Any, attacked: Path, tmp_path: Path, visit: Callable[..., None]
) -> None:
    visit("account", ".problem:not(:empty)", key="")
    assert says(browser, ".problem", "401: this needs an API key")
    browser.find_element("id", "key").send_keys(KEY + "\n")
    wait_until(lambda: len(texts(browser, "#samples button")) > 0)
    assert "test" in texts(browser, "#model")[0]

    given = [{**s, "id": f"new {s['id']}"} for s in sequences(attacked / "events.csv", 300)[240:]]
    results = score(desk, {"sequences": given, "repair": True, "trial": True}).json()["results"]
    dropped = [r["decision"] == "block" and r["repair"]["strategy"].startswith("drop") for r in results]
    at = next(i for i, r in enumerate(results) if dropped[i] and 4 < len(r["events"]) < 60)
    put(browser, given[at])
    wait_until(lambda: texts(browser, "#decision") == ["block"])
    assert float(texts(browser, "#value")[0]) == pytest.approx(results[at]["score"], abs=1e-3)
    dots = "#events circle"
    assert len(browser.find_elements("css selector", dots)) == len(given[at]["events"])
    assert len(texts(browser, "#reasons li")) > 0
    assert texts(browser, "#advice")[0].startswith("drop")
    browser.find_element("id", "each").click()
    wait_until(lambda: len(browser.find_elements("css selector", "#without i")) == len(given[at]["events"]))
    assert says(browser, "#most", f"Now it scores {texts(browser, '#value')[0]}. Event #")

    browser.execute_script(f"document.querySelector('{dots}').dispatchEvent(new MouseEvent('click'))")
    left = {**given[at], "events": given[at]["events"][1:]}
    expected = score(desk, {"sequences": [left], "trial": True}).json()["results"][0]
    wait_until(lambda: says(browser, "#removed", "With 1 event taken out"))
    assert texts(browser, "#removed")[0].endswith(expected["decision"])
    assert "#1, score" in texts(browser, "#event")[0]
    press_on = browser.switch_to.active_element  # the keyboard stays where it was
    press_on.send_keys(" ")
    wait_until(lambda: texts(browser, "#removed") == [""])
    browser.switch_to.active_element.send_keys("\ue014")  # arrow right
    assert "#2, score" in texts(browser, "#event")[0]

    browser.find_element("css selector", "[data-verdict=anomalous]").click()
    wait_until(lambda: texts(browser, "#said") == ["recorded: anomalous, where the decision is block"])
    browser.find_element("css selector", "[data-verdict=undo]").click()
    wait_until(lambda: texts(browser, "#said") == ["taken back"])
    assert browser.save_screenshot(str(tmp_path / "console.png"))
    assert complaints(browser) == []


def test_a_vector_is_told_by_its_length_and_by_how_its_base64_begins(browser: Any, visit: Callable[..., None]) -> None:
    visit("account")
    vectors = {"picture": [0.123] * 384, "sound": "AbCd" * 256, "note": "many words " * 9}
    events = [{**event, **vectors} for event in genuine_log(1, seed=12).drop("sequence_id").to_dicts()]
    put(browser, {"id": "wide", "events": events})
    wait_until(lambda: len(browser.find_elements("css selector", "#events circle")) == len(events))
    browser.execute_script("document.querySelector('#events circle').dispatchEvent(new Event('pointerenter'))")
    [said] = texts(browser, "#event")
    assert f"picture of 384 numbers, sound {('AbCd' * 15)[:59]}…, note many words many words" in said
    assert "0.123" not in said
    assert not {"picture"} & set(texts(browser, "#view option"))


def test_a_bad_sequence_is_said_in_words(browser: Any, visit: Callable[..., None]) -> None:
    visit("account")
    for text, words in (("{", "JSON"), ('{"events": []}', "/sequences/0/events")):
        put(browser, text)
        wait_until(partial(says, browser, ".problem", words))


def test_other_answers_to_the_same_account_are_told(desk: Service, browser: Any, visit: Callable[..., None]) -> None:
    events = genuine_log(1, seed=11).drop("sequence_id").to_dicts()
    ids = []
    for part in (events[:4], events):
        found = score(desk, {"sequences": [{"id": f"{len(part)}", "user_id": "twice", "events": part}]}).json()
        ids.append(found["results"][0]["score_id"])
    desk.client.post("/v1/feedback", json={"score_id": ids[0], "verdict": "normal"}).raise_for_status()
    visit(f"account/{ids[1]}", "#earlier")
    assert texts(browser, ".account") == ["Account twice"]
    wait_until(lambda: says(browser, "#earlier tbody tr", "normal"))
    browser.find_element("css selector", "#earlier a").click()
    wait_until(lambda: len(browser.find_elements("css selector", "#events circle")) == 4)
    assert browser.current_url.endswith(f"#account/{ids[0]}")


@pytest.mark.parametrize("segment", ["constructor", "__proto__"])
def test_a_segment_may_have_any_name(
    browser: Any, some: list[dict[str, Any]], segment: str, visit: Callable[..., None]
) -> None:
    visit("account")
    put(browser, {**some[0], "segment": segment})
    wait_until(lambda: says(browser, ".answer", "review from "))
    assert not says(browser, ".answer", "NaN")


def test_an_exempt_account_is_said(desk: Service, browser: Any, attacked: Path, visit: Callable[..., None]) -> None:
    some = [{**s, "id": f"exempt {s['id']}"} for s in sequences(attacked / "events.csv", 300)[240:]]
    decided = score(desk, {"sequences": some}).json()["results"]
    sequence, flagged = next((s, r) for s, r in zip(some, decided, strict=True) if r["decision"] == "block")
    body = {"score_id": flagged["score_id"], "verdict": "normal"}
    until = desk.client.post("/v1/feedback", json=body).raise_for_status().json()["exempt_until"]
    wait_until(lambda: sample(desk, "recguard_exemptions") >= 1)
    visit("account")
    put(browser, sequence)
    wait_until(lambda: texts(browser, "#decision") == ["allow"])
    day = datetime.fromtimestamp(until, UTC).date().isoformat()
    assert texts(browser, "#type") == [f"called genuine, until {day}: the thresholds say block"]
