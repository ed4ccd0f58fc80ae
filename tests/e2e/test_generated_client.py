"""A client that a generator makes from the service's description: it compiles without a word, and calls every route."""

import compileall
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from service.encoding.chunks import pad
from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from tests.support.service import Service, Starter, bearer

KEY = "somebody-0123456789"


@pytest.fixture
def service(start_service: Starter, bundles: Path) -> Service:
    """A service whose key opens all doors, with another bundle to change to."""
    return start_service(bundles / "one", review_share=1, api_keys=f"all:score+review+admin+metrics:{KEY}")


@pytest.fixture
def routes(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The generated functions by the name of their route."""
    pytest.importorskip("openapi_python_client")
    (tmp_path / "api.json").write_text(service.client.get("/openapi.json").text)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", tmp_path / "api.json"]
    (tmp_path / "made").mkdir()
    options = ["--output-path", tmp_path / "made" / "generated", "--meta", "none", "--fail-on-warning"]
    (tmp_path / "config.yml").write_text("post_hooks: []\n")  # its formatter is no part of what is made
    done = subprocess.run([*command, *options, "--config", tmp_path / "config.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert compileall.compile_dir(tmp_path / "made", quiet=1)
    monkeypatch.syspath_prepend(tmp_path / "made")
    api = importlib.import_module("generated.api")
    found = pkgutil.walk_packages(api.__path__, "generated.api.")
    return {m.name.rpartition(".")[2]: importlib.import_module(m.name) for m in found if not m.ispkg}


def test_every_route_is_called(
    service: Service, routes: dict[str, Any], bundle: Bundle, some: list[dict[str, Any]]
) -> None:
    described = service.client.get("/openapi.json").json()["paths"]
    assert len(routes) == sum(len(methods) for methods in described.values())
    generated, url = importlib.import_module("generated"), str(service.client.base_url)
    client = generated.AuthenticatedClient(base_url=url, token=KEY, raise_on_unexpected_status=True, timeout=60)
    problem = importlib.import_module("generated.models").ProblemDocument
    scored = service.client.post("/v1/score", json={"sequences": some[:1]}, headers=bearer(KEY)).json()
    ids = pad(bundle.encoder.encode(*columns_of(some[0]["events"])).chunks)
    tensor = {"name": "ids", "shape": list(ids.shape), "datatype": "INT32", "data": ids.ravel().tolist()}
    pair = {"review": 0.5, "block": 0.9}
    bodies: dict[str, Any] = {
        "score": {"sequences": some[:3], "reasons": 2, "repair": True},
        "events": {"events": [{"key": "u", "event": some[0]["events"][0]}]},
        "warm": {"events": [{"key": "v", "event": some[0]["events"][0]}]},
        "put_thresholds": {"review_rate": 0.05, "block_rate": 0.01, "segments": {"new": pair}},
        "recalibrate_rates": {"dry_run": True},
        "preview": pair,
        "challenger": {"bundle": "two"},
        "reload": {"bundle": "one"},
        "feedback": {"score_id": scored["results"][0]["score_id"], "verdict": "normal"},
        "undo": {"score_id": scored["results"][0]["score_id"]},
        "campaign_verdict": {"verdict": "normal"},
        "infer": {"inputs": [tensor]},
        "version_infer": {"inputs": [tensor]},
    }
    given = {"name": bundle.name, "version": bundle.version, "key": "u", "which": "0" * 16}
    given["score_id"] = scored["results"][0]["score_id"]
    for name in sorted(routes, key=lambda name: name.startswith("promote")):  # what comes after it meets another model
        call = routes[name].sync_detailed
        hints = get_type_hints(call)
        more = {argument: value for argument, value in given.items() if argument in hints}
        if "body" in hints:
            [body] = [body for route, body in bodies.items() if name.startswith(f"{route}_v")]
            more["body"] = hints["body"].from_dict(json.loads(json.dumps(body)))
        answer = call(client=client, **more)
        absent = name.startswith("campaign_verdict")  # so few accounts are no campaign
        assert answer.status_code == (404 if absent else 200), (name, answer.content)
        assert answer.parsed is not None
        assert isinstance(answer.parsed, problem) == absent, name
    stranger = generated.AuthenticatedClient(base_url=url, token="wrong")
    refused = routes["thresholds_v1_thresholds_get"].sync_detailed(client=stranger)
    assert (refused.status_code, isinstance(refused.parsed, problem)) == (401, True)
