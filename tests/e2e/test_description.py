"""What the service says of itself: its API, the model in force, its metrics."""

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.model.bundle import Bundle
from tests.support.processes import needs, run
from tests.support.service import Service, sample, score


def test_openapi_documents_request_answer_and_problems(service: Service) -> None:
    api = service.client.get("/openapi.json").json()
    post = api["paths"]["/v1/score"]["post"]
    schemas = api["components"]["schemas"]
    name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schemas[name]["examples"][0]["sequences"]
    assert set(re.findall(r'"#/([^"]+)"', json.dumps(api))) == {f"components/schemas/{name}" for name in schemas}
    assert {"200", "400", "413", "422", "429", "503", "504"} <= post["responses"].keys()
    assert service.client.get("/docs").status_code == 200


def test_the_model_route_says_what_serves(service: Service, bundle: Bundle) -> None:
    model = service.client.get("/v1/model").json()
    assert (model["name"], model["version"]) == (bundle.name, bundle.version)
    assert model["provider"] in ("cpu", "cuda")
    assert model["requested_provider"] == "auto"
    info = {"version": bundle.version, "provider": model["provider"], "requested": "auto"}
    assert sample(service, "recguard_model_info", **info) == 1


def test_metrics_are_those_of_the_contract_and_sound(service: Service, some: list[dict[str, Any]]) -> None:
    before = sample(service, "recguard_anomaly_score_count")
    score(service, {"sequences": some[:7]})
    assert sample(service, "recguard_anomaly_score_count") == before + 7
    text = service.client.get("/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    contract = """requests request_duration_seconds sequences anomaly_score queue_wait_seconds batch_sequences
        batch_tokens padding_ratio inference_duration_seconds queue_depth_sequences rejected unknown_values
        score_drift_psi threshold model_info model_reloads queue_tokens queue_capacity_tokens stage_duration_seconds"""
    assert {f"recguard_{name}" for name in contract.split()} <= names
    needs("promtool")
    run("promtool", "check", "metrics", given=text)
