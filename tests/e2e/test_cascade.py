"""The cascade: the same traffic is decided alike with it and without, and most of it never reaches the graph."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from service.model.bundle import Bundle
from tests.support.logs import genuine_log, sequences
from tests.support.service import Service, Starter, sample, score
from training.config import FitConfig
from training.data.attacks import ATTACKS
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.data.lookalikes import LOOKALIKES
from training.fit.bundle import fit_bundle

ODD = [kind for kind in ATTACKS if kind not in LOOKALIKES]
AT_ONCE = 200
RARELY = 0.01  # share of a type of attack that may be lost


def attacked_log(folder: Path, users: int, size: float, seed: int) -> Path:
    """Writes a shop's log and labels, with attackers of every type that one history shows."""
    folder.mkdir()
    genuine_log(users, seed).write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    write(folder, *inject(log, None, InjectConfig(size=size, filler=(0.1, 0.3), campaigns=(3,), seed=seed), ODD))
    return folder


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of enough accounts for bounds."""
    folder = attacked_log(tmp_path_factory.mktemp("cascade") / "old", 400, 0.05, 0)
    config = FitConfig(preset="tiny", epochs=3)
    return fit_bundle(folder / "events.csv", folder / "labels.csv", folder / "bundle", config)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Accounts of another log of that shop, more than 1,000 genuine ones, and what each is."""
    folder = attacked_log(tmp_path_factory.mktemp("cascade") / "new", 1150, 0.1, 5)
    labels = pl.read_csv(folder / "labels.csv", schema_overrides={"sequence_id": pl.String}).sort("sequence_id")
    rows = labels.select("sequence_id", "label", "type").rows()
    # accounts are numbers, which `sequences` reads without leading zeros
    kinds = {str(int(account)): kind if label else "genuine" for account, label, kind in rows}
    return sequences(folder / "events.csv", len(kinds)), kinds


def answers(service: Service, some: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Results by `/v1/score`, in the order of the sequences."""
    found: list[dict[str, Any]] = []
    for k in range(0, len(some), AT_ONCE):
        reply = score(service, {"sequences": some[k : k + AT_ONCE], **more}, **{"X-Request-Timeout-Ms": "60000"})
        assert reply.status_code == 200, reply.text
        found += reply.json()["results"]
    return found


def counted(service: Service) -> dict[str, float]:
    return {way: sample(service, "recguard_cascade_sequences_total", network=way) for way in ("run", "skipped")}


def left_out(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in results if not result.get("network", True)]


@pytest.mark.slow
@pytest.mark.parametrize("crowd", [False, True])
def test_the_same_traffic_is_decided_alike_and_nobody_is_flagged_more(
    bounded: Bundle, fresh: tuple[list[dict[str, Any]], dict[str, str]], start_service: Starter, crowd: bool
) -> None:
    some, kinds = fresh
    without, with_it = (start_service(bounded.path, crowd=crowd, cascade=on) for on in (False, True))
    plain, early = answers(without, some), answers(with_it, some)
    assert not left_out(plain)
    assert counted(without) == {"run": len(some), "skipped": 0}
    spared = left_out(early)
    assert counted(with_it) == {"run": len(some) - len(spared), "skipped": len(spared)}
    assert all(one["decision"] == "allow" for one in spared)
    assert sum(kinds[one["id"]] == "genuine" for one in spared) > len([k for k in kinds.values() if k == "genuine"]) / 2
    moved = Counter(kinds[a["id"]] for a, b in zip(plain, early, strict=True) if a["decision"] != b["decision"])
    flagged = Counter(kinds[a["id"]] for a in plain if a["decision"] != "allow")
    genuine = sum(kind == "genuine" for kind in kinds.values())
    assert genuine >= 1000
    assert moved["genuine"] <= 0.001 * genuine
    assert {kind: n for kind, n in moved.items() if kind != "genuine" and n > max(RARELY * flagged[kind], 1)} == {}
    for before, after in zip(plain, early, strict=True):
        if before["decision"] == "allow":  # whoever the network clears is cleared with the cascade too
            assert after["decision"] == "allow"
        if after.get("network", True):
            assert abs(before["score"] - after["score"]) < 1e-3


@pytest.mark.slow
def test_thresholds_set_at_run_time_hold_for_what_is_left_out(
    bounded: Bundle, fresh: tuple[list[dict[str, Any]], dict[str, str]], start_service: Starter
) -> None:
    some = fresh[0][:300]
    without, with_it = (start_service(bounded.path, cascade=on) for on in (False, True))
    first = len(left_out(answers(with_it, some)))
    assert first > 0
    shares = []
    for low in ({"review_rate": 0.4, "block_rate": 0.1}, {"review": 0.0, "block": 1.0}):
        for service in (without, with_it):
            assert service.client.put("/v1/thresholds", json=low).status_code == 200
        plain, early = answers(without, some), answers(with_it, some)
        moved = [a["id"] for a, b in zip(plain, early, strict=True) if a["decision"] != b["decision"]]
        assert len(moved) <= RARELY * len(some)
        shares.append(len(left_out(early)))
    assert shares[0] < first
    assert shares[1] == 0  # everybody is reviewed
    # the lowest thresholds count, whichever segment they are of
    strict = {"review_rate": 0.01, "block_rate": 0.01, "segments": {"new": {"review": 0.0, "block": 1.0}}}
    assert with_it.client.put("/v1/thresholds", json=strict).status_code == 200
    assert not left_out(answers(with_it, some))


@pytest.mark.slow
def test_reasons_repair_trials_and_bundles_without_bounds_take_the_network(
    bounded: Bundle, fresh: tuple[list[dict[str, Any]], dict[str, str]], start_service: Starter, tmp_path: Path
) -> None:
    some = fresh[0][:40]
    service = start_service(bounded.path, cascade=True, cache_seconds=60)
    spared = left_out(answers(service, some))
    assert spared
    again = answers(service, some)  # from the cache, as they were
    assert {one["id"] for one in left_out(again)} == {one["id"] for one in spared}
    assert sample(service, "recguard_cache_hits_total") == len(some)
    for more in ({"reasons": 3}, {"repair": True}, {"trial": True}):
        assert not left_out(answers(service, some, **more))
    shutil.copytree(bounded.path, tmp_path / "older")
    manifest = json.loads((tmp_path / "older" / "manifest.json").read_text())
    del manifest["cascade"]
    (tmp_path / "older" / "manifest.json").write_text(json.dumps(manifest))
    older = start_service(tmp_path / "older", cascade=True)
    assert not left_out(answers(older, some))
    assert counted(older) == {"run": len(some), "skipped": 0}


@pytest.mark.slow
def test_live_windows_are_decided_by_the_same_rule(
    bounded: Bundle, fresh: tuple[list[dict[str, Any]], dict[str, str]], start_service: Starter
) -> None:
    some = fresh[0][:60]
    without, with_it = (start_service(bounded.path, cascade=on) for on in (False, True))
    spared = 0
    for at in range(6):
        events = [{"key": s["id"], "event_id": f"e{at}", "event": s["events"][at]} for s in some]
        plain, early = (
            service.client.post("/v1/events", json={"events": events}).json()["results"]
            for service in (without, with_it)
        )
        for before, after in zip(plain, early, strict=True):
            assert after["kept"] == before["kept"]
            if before["decision"] == "allow":
                assert after["decision"] == "allow"
        spared += len(left_out(early))
    assert spared > 0
