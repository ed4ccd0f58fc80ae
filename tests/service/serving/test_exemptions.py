"""Which answers pass by a person's verdict, as one process knows them."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.model.exemption import Exemption
from service.schemas.messages import Sequence
from service.serving.exemptions import WHOLE, Exemptions, by_thresholds
from service.stores.audit import Audit
from service.telemetry.logs import Pseudonyms
from service.telemetry.metrics import Metrics

NOW = time.time()  # of the import, long before the tests run
DAY = 86_400.0
EVENTS = [{"action": "click"}]


@pytest.fixture
def exemptions(tmp_path: Path) -> Exemptions:
    """Ann is exempt up to a score of 0.9, and so is who comes without a user under that id."""
    metrics = Metrics()
    found = Exemptions(30.0, Pseudonyms(tmp_path, clear=False), Audit(tmp_path), metrics)
    found.learn((2, NOW, 2 * NOW), [exemption(found, "ann"), exemption(found, "bob", version="2")], "1")
    assert metrics.registry.get_sample_value("recguard_exemptions") == 1, "those of the bundle that serves"
    return found


def exemption(of: Exemptions, account: str, version: str = "1", until: float = NOW + DAY) -> Exemption:
    return Exemption(of.pseudonyms.of(account), version, "a", 0.9, NOW - 100, until)


def result(score: float = 0.8, decision: str = "block", **more: Any) -> dict[str, Any]:
    return {"id": "s", "score": score, "decision": decision, "type": "click farm", **more}


def one(of: Exemptions, given: dict[str, Any], user: str | None = "ann", version: str = "1") -> dict[str, Any]:
    [found] = of.applied([Sequence(id="s", user_id=user, events=EVENTS)], [given], version)
    return found


def test_an_exempt_account_passes_and_its_answer_says_what_the_thresholds_say(exemptions: Exemptions) -> None:
    given = result(repair={"strategy": "drop_sequence", "drop": [0], "weight": 0.2})
    found = one(exemptions, given)
    exempt = {"decision": "block", "type": "click farm", "since": NOW - 100, "until": NOW + DAY}
    assert found == {**given, "decision": "allow", "type": None, "exempt": exempt, "repair": WHOLE}
    assert given["decision"] == "block", "the answer in the cache is for others too"
    assert (by_thresholds(found), by_thresholds(given)) == ("block", "block")
    assert one(exemptions, result(0.9, "review"))["decision"] == "allow"


@pytest.mark.parametrize(
    ("given", "user", "version"),
    [
        (result(0.900001), "ann", "1"),
        (result(listed="deny"), "ann", "1"),
        (result(), "ann", "2"),
        (result(), "bob", "1"),
        (result(), None, "1"),
        (result(0.1, "allow"), "ann", "1"),
        ({"id": "s", "error": {}}, "ann", "1"),
    ],
    ids=["worse", "denied", "other bundle", "judged by another bundle", "stranger", "allowed", "unscored"],
)
def test_every_other_answer_stays_as_it_is(
    exemptions: Exemptions, given: dict[str, Any], user: str | None, version: str
) -> None:
    assert one(exemptions, given, user, version) is given


def test_one_that_lapsed_since_it_was_read_no_longer_counts(exemptions: Exemptions) -> None:
    exemptions.learn((1, NOW, NOW), [exemption(exemptions, "ann", until=NOW)], "1")
    assert exemptions.metrics.registry.get_sample_value("recguard_exemptions") == 0
    assert one(exemptions, result())["decision"] == "block"


def test_a_sequence_without_a_user_is_its_ids_account(exemptions: Exemptions) -> None:
    exemptions.learn((1, NOW, NOW), [exemption(exemptions, "s")], "1")
    assert one(exemptions, result(), user=None)["decision"] == "allow"
    assert one(exemptions, result())["decision"] == "block"


def test_a_malformed_sequence_keeps_its_place(exemptions: Exemptions) -> None:
    bad = {"id": None, "error": {}}
    sent = [bad, Sequence(id="s", user_id="ann", events=EVENTS)]
    assert [r.get("decision") for r in exemptions.applied(sent, [bad, result()], "1")] == [None, "allow"]
