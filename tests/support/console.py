"""The console in a real browser: its views, what is typed, what is read."""

import json
from typing import Any

from tests.support.browser import texts

KEY, SCORER = "analyst-0123456789", "scorer-0123456789"
RING = 12
HOSTILE = "<img src=x onerror=document.title='taken'>"
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
    return [message for message in serious if not any(f"status of {code} " in message for code in (401, 403, 409, 422))]
