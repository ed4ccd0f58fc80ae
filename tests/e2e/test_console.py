"""The console in a real browser, as analysts and on-call engineers use it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.api.routes.console import OF_CONSOLE, PAGES
from service.model.bundle import Bundle
from tests.support.browser import axe, seen_as, texts, violations
from tests.support.logs import genuine_log, sequences
from tests.support.processes import wait_until
from tests.support.service import Service, Starter, bearer, sample, score

KEY, SCORER = "analyst-0123456789", "scorer-0123456789"
TOLD = [(label, d) for label in ("anomalous", "normal") for d in ("allow", "review", "block")]
RING = 12
HOSTILE = "<img src=x onerror=document.title='taken'>"
MOST_BYTES, MOST_PAINT = 300_000, 1000.0  # of the page with its parts, and milliseconds until it shows something
# each view, and what shows that it is there with its data
VIEWS = {
    "now": ".tile b",
    "queue": "#queue button",
    "account": "#samples button",
    "campaigns": "#graph circle",
    "thresholds": "#spread rect",
    "drift": "#fields summary",
}


def ring_of(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accounts of genuine habits that all buy one new thing within minutes."""
    end = max(event["ts"] for one in people for event in one["events"])
    found = []
    for k, one in enumerate(people[:RING]):
        later = end + 60 * k - one["events"][-1]["ts"]
        events = [{**event, "ts": event["ts"] + later} for event in one["events"]]
        events.append({**events[-1], "item_id": HOSTILE, "action": "purchase", "ts": events[-1]["ts"] + 20})
        found.append({"id": f"fake{k}", "user_id": f"{HOSTILE}{k}", "events": events})
    return found


@pytest.fixture(scope="module")
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


def put(browser: Any, given: object) -> None:
    """Puts a sequence into the field, and has it scored."""
    text = given if isinstance(given, str) else json.dumps(given)
    browser.execute_script("document.getElementById('input').value = arguments[0]", text)
    browser.find_element("id", "score").click()


def press(browser: Any, key: str) -> None:
    browser.find_element("tag name", "body").send_keys(key)


def says(browser: Any, selector: str, words: str) -> bool:
    return any(words in text for text in texts(browser, selector))


def complaints(browser: Any) -> list[str]:
    """What the browser warned of, but for the refusals that a test brings about."""
    serious = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
    return [message for message in serious if not any(f"status of {code} " in message for code in (401, 403, 422))]


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


def test_a_bad_sequence_is_said_in_words(browser: Any, visit: Callable[..., None]) -> None:
    visit("account")
    for text, words in (("{", "JSON"), ('{"events": []}', "/sequences/0/events")):
        put(browser, text)
        wait_until(partial(says, browser, ".problem", words))


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


def test_an_analyst_works_through_the_queue_by_key_and_takes_a_verdict_back(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    visit("queue", "#verdict")

    def waiting() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = desk.client.get("/v1/review", params={"most": 200}).json()["answers"]
        return found

    def given() -> float:
        return sum(sample(desk, "recguard_feedback_total", label=label, decision=d) for label, d in TOLD)

    def shows(answer: dict[str, Any]) -> Callable[[], bool]:
        return lambda: texts(browser, ".account") == [f"Account {answer['user_id'] or answer['sequence_id']}"]

    (one, two, three, *_), before = waiting(), given()
    wait_until(shows(one))
    press(browser, "a")
    wait_until(lambda: says(browser, "#said", "recorded: anomalous"))
    assert given() == before + 1
    wait_until(lambda: says(browser, "#progress", " of "))
    wait_until(shows(two))
    press(browser, "s")
    wait_until(shows(three))
    assert says(browser, "#said", "skipped")
    left = {answer["score_id"] for answer in waiting()}
    assert one["score_id"] not in left
    assert two["score_id"] in left, "what was skipped still waits"
    press(browser, "u")
    wait_until(lambda: says(browser, "#said", "taken back: anomalous"))
    wait_until(shows(one))
    wait_until(lambda: says(browser, "#answer", "taken back"))
    assert one in waiting()
    told = desk.client.get(f"/v1/review/{one['score_id']}").json()["verdicts"]
    assert [verdict["verdict"] for verdict in told] == ["anomalous", "undone"], "nothing is removed"
    press(browser, "n")
    wait_until(lambda: says(browser, "#said", "recorded: normal"))
    assert complaints(browser) == []


def test_the_queue_is_filtered_and_sorted(desk: Service, browser: Any, visit: Callable[..., None]) -> None:
    visit("queue", "#verdict")
    browser.execute_script("""
        const [order, decision] = document.querySelectorAll("select");
        order.value = "score";
        order.dispatchEvent(new Event("change"));
        decision.value = "block";
        decision.dispatchEvent(new Event("change"));""")
    asked = {"decision": "block", "order": "score", "most": 200}
    wanted = desk.client.get("/v1/review", params=asked).json()["answers"]
    assert [one["score"] for one in wanted] == sorted((one["score"] for one in wanted), reverse=True)
    wait_until(lambda: len(texts(browser, "#queue li")) == min(len(wanted), 60))
    assert all(text.startswith("block") for text in texts(browser, "#queue li"))
    browser.find_element("id", "why").click()
    fields = "return [...document.querySelectorAll('select')[4].options].map((one) => one.value).filter(Boolean)"
    wait_until(lambda: len(browser.execute_script(fields)) > 0)
    browser.execute_script("""
        const [order, decision, type, segment] = document.querySelectorAll("select");
        decision.value = "allow";
        decision.dispatchEvent(new Event("change"));
        segment.value = "new";
        segment.dispatchEvent(new Event("change"));""")
    asked = {"decision": "allow", "segment": "new", "most": 200}
    wanted = desk.client.get("/v1/review", params=asked).json()["answers"]
    assert all(one["segment"] == "new" for one in wanted)
    wait_until(lambda: len(texts(browser, "#queue li")) == min(len(wanted), 60))


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
