"""Bundles are changed while requests come in."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.model.bundle import Bundle
from tests.support.problems import assert_problem
from tests.support.service import Service, Starter, sample, score


def test_reload_swaps_bundles_under_load_and_refuses_bad_ones(
    start_service: Starter, bundle: Bundle, bundles: Path, some: list[dict[str, Any]]
) -> None:
    service = start_service(bundles / "one")
    reload = service.client.post("/v1/model/reload", json={"bundle": "broken"}, timeout=60)
    assert_problem(reload, 422, "model.onnx: damaged")
    assert_problem(service.client.post("/v1/model/reload", json={"bundle": "../one"}), 422, "/bundle")
    assert_problem(service.client.post("/v1/model/reload", json={"bundle": "absent"}), 422, "no such bundle")
    assert service.client.get("/v1/model").json()["version"] == bundle.version

    stop = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=30, verify=False) as client:
            while not stop.is_set():
                statuses.append(client.post("/v1/score", json={"sequences": some[:5]}).status_code)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        for name, version in (("two", "2"), ("one", bundle.version), ("two", "2")):
            answer = service.client.post("/v1/model/reload", json={"bundle": name}, timeout=60)
            assert answer.json()["version"] == version
        stop.set()
        for c in clients:
            c.result()
    assert set(statuses) == {200}
    assert sample(service, "recguard_model_info", version="2") == 1
    assert sample(service, "recguard_model_info", version=bundle.version) == 0
    assert sample(service, "recguard_model_reloads_total", outcome="ok") == 3
    assert sample(service, "recguard_model_reloads_total", outcome="failed") == 2


@pytest.fixture(scope="module")
def reloading(start_service: Starter, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Service, Path]:
    """A service, and a folder in which it may be told to look for the next bundle."""
    folder = tmp_path_factory.mktemp("bundles")
    shutil.copytree(bundle.path, folder / "one")
    return start_service(folder / "one"), folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation_scores", None),
        ("validation_scores", [1, 2]),
        ("field_values", None),
        ("metrics", None),
        ("created", None),
        ("calibration", None),
        ("promise", None),
        ("thresholds", {"review": 0.9, "block": 0.1}),
    ],
)
def test_a_bundle_with_a_part_missing_or_wrong_is_refused_before_it_is_in_force(
    reloading: tuple[Service, Path], some: list[dict[str, Any]], key: str, value: Any
) -> None:
    service, folder = reloading
    failed = sample(service, "recguard_model_reloads_total", outcome="failed")
    before = service.client.get("/v1/model").json()
    wrong = folder / f"{key}-{'missing' if value is None else 'wrong'}"
    shutil.copytree(folder / "one", wrong)
    manifest = json.loads((wrong / "manifest.json").read_text()) | {"version": "2"}
    if value is None:
        del manifest[key]
    else:
        manifest[key] = value
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    answer = service.client.post("/v1/model/reload", json={"bundle": wrong.name}, timeout=60)
    assert_problem(answer, 422, str(wrong))
    assert sample(service, "recguard_model_reloads_total", outcome="failed") == failed + 1
    assert service.client.get("/v1/model").json() == before
    assert service.client.get("/health/ready").status_code == 200
    assert score(service, {"sequences": some}).status_code == 200
    assert service.client.get("/metrics").status_code == 200
    assert not (service.log.parent / "state" / "audit.jsonl").exists()
