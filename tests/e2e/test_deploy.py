"""What stands under deploy/ fits the service that it watches."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.settings import Settings
from tests.support.logs import sequences
from tests.support.paths import DEPLOY
from tests.support.processes import answers, free_port, needs, run, start, stop, wait_until
from tests.support.service import Service


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ["check", "rules", str(DEPLOY / "prometheus" / "rules.yml")]),
        ("promtool", ["check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]),
        ("amtool", ["check-config", str(DEPLOY / "alertmanager" / "alertmanager.yml")]),
    ],
)
def test_the_real_programs_accept_their_configuration(program: str, arguments: list[str]) -> None:
    needs(program)
    run(program, *arguments)


KUBERNETES = DEPLOY / "kubernetes"
FOREIGN = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}  # of operators, whose schemas no registry package has


def assert_valid(resources: list[dict[str, Any]]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for resource in resources:
        if resource["kind"] not in FOREIGN:
            validate.validate(resource, "1.33", strict=True)


def test_the_resources_fit_the_schemas_of_kubernetes() -> None:
    files = [p for p in (KUBERNETES / "base").glob("*.yaml") if p.name != "kustomization.yaml"]
    listed = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["resources"]
    assert {p.name for p in files} == set(listed)
    assert_valid([yaml.safe_load(p.read_text()) for p in files])


@pytest.mark.parametrize(("overlay", "provider"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_an_overlay_is_whole_and_locked_down(overlay: str, provider: str) -> None:
    needs("kubectl")
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES / overlay], capture_output=True, text=True)
    if built.returncode and "unknown field" in built.stderr:
        pytest.skip("this kubectl is too old for the overlays")
    assert built.returncode == 0, built.stderr
    resources = list(yaml.safe_load_all(built.stdout))
    assert_valid(resources)
    by_kind = {r["kind"]: r for r in resources}
    pod = by_kind["Deployment"]["spec"]["template"]
    service = pod["spec"]["containers"][0]
    config = by_kind["ConfigMap"]
    assert service["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert {name.removeprefix("RECGUARD_").lower() for name in config["data"]} <= Settings.model_fields.keys()
    assert config["data"]["RECGUARD_PROVIDER"] == provider
    assert ("nvidia.com/gpu" in service["resources"]["limits"]) == (provider == "cuda")
    for container in (service, *pod["spec"]["initContainers"]):
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"]
        assert not locked["allowPrivilegeEscalation"]
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    for selector in (
        by_kind["Service"]["spec"]["selector"],
        by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        by_kind["ServiceMonitor"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= pod["metadata"]["labels"].items()
    assert by_kind["ServiceMonitor"]["metadata"]["labels"].items() <= by_kind["Service"]["metadata"]["labels"].items()


def test_prometheus_operator_gets_the_same_rules() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    operators = yaml.safe_load((KUBERNETES / "base" / "rules.yaml").read_text())
    assert operators["spec"] == rules, "run: make -B deploy/kubernetes/base/rules.yaml"


def test_the_reverse_proxy_speaks_tls_and_keeps_admin_and_metrics_in(
    service: Service, attacked: Path, tmp_path: Path
) -> None:
    needs("nginx", "openssl")
    certify = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    run("openssl", *certify.split(), cwd=tmp_path)
    port = free_port()
    changes = {
        "127.0.0.1:8080": service.client.base_url.netloc.decode(),
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/tls": str(tmp_path),
        "http {": f"pid {tmp_path}/pid; http {{ access_log off; client_body_temp_path {tmp_path}/body;",
    }
    config = (DEPLOY / "nginx.conf").read_text()
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "nginx.conf").write_text(config)
    command = ["nginx", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log", "-g", "daemon off;"]
    process = start(command, tmp_path / "log")
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=30) as client:
            wait_until(lambda: answers(client, "/health/ready"))
            body = {"sequences": sequences(attacked / "events.csv", 3)}
            assert client.post("/v1/score", json=body).status_code == 200
            assert client.put("/v1/thresholds", json={"review": 0.1, "block": 0.9}).status_code == 403
            assert client.get("/metrics").status_code == 404
    finally:
        stop(process)


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
