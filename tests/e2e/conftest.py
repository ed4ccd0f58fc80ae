"""What tests from outside share: services that run, sequences to send, bundles to change to, and a browser."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.model.bundle import Bundle
from tests.support.browser import chromium
from tests.support.logs import sequences
from tests.support.receiver import Receiver
from tests.support.service import Service, Starter


@pytest.fixture(scope="session")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts services with settings of the test's choice, and stops what still runs at the end."""
    starter = Starter(lambda: tmp_path_factory.mktemp("service"))
    yield starter
    starter.stop()


@pytest.fixture(autouse=True)
def stopped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stops what a test has started by itself once it ends: hundreds that wait take a good part of a core together."""
    if "start_service" not in request.fixturenames:
        yield
        return
    starter: Starter = request.getfixturevalue("start_service")
    shared = list(starter.running)  # by fixtures of wider scope, which come before this one
    yield
    starter.stop(but=shared)


@pytest.fixture(scope="session")
def service(start_service: Starter, bundle: Bundle) -> Service:
    """A service with default limits on the test bundle."""
    return start_service(bundle.path, max_body_bytes=2_000_000, max_events=4096)


@pytest.fixture(scope="session")
def some(attacked: Path) -> list[dict[str, Any]]:
    """Forty sequences as the API takes them."""
    return sequences(attacked / "events.csv", 40)


@pytest.fixture
def bundles(bundle: Bundle, tmp_path: Path) -> Path:
    """Two bundles that differ in their version and thresholds, and a broken one."""
    for name in ("one", "two", "broken"):
        shutil.copytree(bundle.path, tmp_path / name)
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    changed = {**manifest, "version": "2", "thresholds": {"review": 0.0, "block": 0.0}}
    (tmp_path / "two" / "manifest.json").write_text(json.dumps(changed))
    (tmp_path / "broken" / "model.onnx").write_bytes(b"broken")
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    driver = chromium()
    yield driver
    driver.quit()
