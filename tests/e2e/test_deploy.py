"""What stands under deploy/ fits the service that it watches."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Service, free_port, sequences

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ["check", "rules", str(DEPLOY / "prometheus" / "rules.yml")]),
        ("promtool", ["check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]),
        ("amtool", ["check-config", str(DEPLOY / "alertmanager" / "alertmanager.yml")]),
    ],
)
def test_the_real_programs_accept_their_configuration(program: str, arguments: list[str]) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    checked = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_example_client_passes_decisions_on_and_fails_open(service: Service, attacked: Path) -> None:
    spec = importlib.util.spec_from_file_location("fail_open", DEPLOY / "examples" / "fail_open.py")
    assert spec is not None
    assert spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    url = service.client.base_url
    sequence = sequences(attacked / "events.csv", 1)[0]
    decision, result = client.decide(url.host, url.port, sequence, timeout=10)
    assert decision == result["decision"]
    assert client.decide(url.host, url.port, {"id": "empty", "events": []}, timeout=10) == ("allow", None)
    assert client.decide("127.0.0.1", free_port(), sequence) == ("allow", None)
