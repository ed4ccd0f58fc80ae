"""The view of what waits for a verdict."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.support.browser import texts
from tests.support.console import complaints, press, says
from tests.support.processes import wait_until
from tests.support.service import Service, sample

TOLD = [(label, d) for label in ("anomalous", "normal") for d in ("allow", "review", "block")]
PAGE = 30  # answers that the view asks for at once


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
    count = min(len(wanted), PAGE)  # and as many may be shown before the second answer is there
    wait_until(lambda: [text[:5] for text in texts(browser, "#queue li")] == ["block"] * count)
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
    wait_until(lambda: len(texts(browser, "#queue li")) == min(len(wanted), PAGE))


def test_the_queue_asks_for_a_page_and_for_more_on_demand(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    asked = """return performance.getEntriesByType("resource").map((one) => new URL(one.name))
        .filter((one) => one.pathname.endsWith("/v1/review")).map((one) => Number(one.searchParams.get("most")))"""
    left = len(desk.client.get("/v1/review", params={"most": 200}).json()["answers"])
    assert left > 2 * PAGE
    visit("queue", "#verdict")
    browser.execute_script("location.reload()")  # what was skipped before is forgotten
    wait_until(lambda: browser.execute_script(asked) == [PAGE])
    wait_until(lambda: len(texts(browser, "#queue li")) == PAGE)
    wait_until(lambda: len(texts(browser, "#verdict")) == 1)
    account = texts(browser, ".account")
    browser.find_element("id", "more").click()
    wait_until(lambda: len(texts(browser, "#queue li")) == 2 * PAGE)
    assert browser.execute_script(asked) == [PAGE, 2 * PAGE]
    assert texts(browser, ".account") == account, "what is looked at stays"
    assert says(browser, "#open", f"The first {2 * PAGE} are listed.")


def test_a_page_that_is_worked_off_is_followed_by_the_next(
    desk: Service, browser: Any, visit: Callable[..., None]
) -> None:
    visit("queue", "#verdict")
    browser.execute_script("location.reload()")
    wait_until(lambda: len(texts(browser, "#queue li")) == PAGE)
    for left in range(PAGE - 1, 0, -1):
        wait_until(lambda: len(texts(browser, "#verdict")) == 1)
        press(browser, "s")
        wait_until(partial(lambda n: len(texts(browser, "#queue li")) == n, left))
    wait_until(lambda: len(texts(browser, "#verdict")) == 1)
    press(browser, "s")
    wait_until(lambda: len(texts(browser, "#queue li")) == PAGE)
    wait_until(lambda: len(texts(browser, "#verdict")) == 1)


def test_two_readings_of_the_queue_at_once_list_an_answer_once(browser: Any, visit: Callable[..., None]) -> None:
    visit("queue", "#verdict")
    listed = "return [...document.querySelectorAll('#queue button')].map((one) => one.dataset.of)"
    before = browser.execute_script(listed)
    done = browser.execute_script("return performance.getEntriesByType('resource').length")
    browser.execute_script("for (const _ of [1, 2, 3]) document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: browser.execute_script("return performance.getEntriesByType('resource').length") >= done + 6)
    after = browser.execute_script(listed)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
