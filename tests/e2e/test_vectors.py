"""A bundle that reads vectors, from a log to a service's answers, and back to a repaired log."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from service.encoding.vectors import as_text
from service.model.bundle import Bundle
from tests.support.cli import recguard_serve
from tests.support.logs import click, genuine_log
from tests.support.servers import RedisServer
from tests.support.service import Service, Starter, score
from tests.support.training import command
from training.apply.repair import undo
from training.config import FitConfig
from training.fit.bundle import fit_bundle

pytestmark = pytest.mark.slow
WIDTH = 24
PICTURES = np.random.default_rng(0).normal(size=(120, WIDTH)).round(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log whose items have pictures, its labels, and a bundle."""
    made = tmp_path_factory.mktemp("vectors")
    log = genuine_log(120)
    numbers = log["item_id"].str.strip_prefix("i").cast(pl.Int64).to_list()
    log = log.with_columns(picture=pl.Series([PICTURES[n].tolist() for n in numbers], dtype=pl.List(pl.Float64)))
    log.write_parquet(made / "genuine.parquet")
    command("inject", "--events", made / "genuine.parquet", "--out", made, "--types", "click_farm,random_push",
            "--size", "0.1")  # fmt: skip
    config = FitConfig(epochs=1, folds=1, review_fpr=0.1, block_fpr=0.05)
    fit_bundle(made / "events.csv", made / "labels.csv", made / "bundle", config)
    return made


@pytest.fixture(scope="module")
def service(start_service: Starter, folder: Path) -> Service:
    return start_service(folder / "bundle", crowd=True)


def farm(form: Any, count: int = 20) -> list[dict[str, Any]]:
    return [click(0, ts=1.7e9 + k, item_id=f"new{k}", picture=form(PICTURES[3])) for k in range(count)]


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    [found] = answer.json()["results"]
    assert "score" in found, found
    return dict(found)


def test_injected_logs_and_bundles_have_the_vectors_as_they_were(folder: Path) -> None:
    bundle = Bundle.open(folder / "bundle")
    assert bundle.manifest["feature_spec"]["picture"] == "vector"
    assert "codebooks.npz" in bundle.manifest["files"]
    assert (folder / "bundle" / "codebooks.npz").stat().st_size < 10_000
    written = pl.read_csv(folder / "events.csv").select(f"picture.{k}" for k in range(WIDTH)).to_numpy()
    assert {tuple(row) for row in written.tolist()} <= {tuple(row) for row in PICTURES.tolist()}


def test_an_array_and_base64_score_alike_and_reasons_speak_of_the_picture(service: Service) -> None:
    asked = {"reasons": 100, "counterfactual": True, "repair": True, "trial": True}
    halves = [v.astype(np.float16).astype(float) for v in PICTURES]
    as_list = told(score(service, {"sequences": [{"id": "a", "events": farm(lambda v: halves[3].tolist())}], **asked}))
    as_base64 = told(score(service, {"sequences": [{"id": "a", "events": farm(as_text)}], **asked}))
    assert as_list["score"] == as_base64["score"]
    assert as_list.get("unreadable") is None
    texts = [reason["text"] for reason in as_base64["reasons"]]
    assert any("picture" in text for text in texts), texts
    columns = {"ts": [1.7e9, 1.7e9 + 1], "item_id": ["i1", "i2"], "picture": [PICTURES[1].tolist(), None]}
    assert told(score(service, {"sequences": [{"id": "c", "events": columns}], "trial": True}))["missing"] is not None


@pytest.mark.parametrize(
    "picture", [[1.0], [*PICTURES[0][:-1].tolist(), None], "kitten", 3, [[1.0]], ["1"] * WIDTH, []]
)
def test_what_is_no_vector_is_missing_and_listed(service: Service, picture: Any) -> None:
    events = [*farm(as_text, 3), click(4, picture=picture)]
    found = told(score(service, {"sequences": [{"id": "a", "events": events}], "trial": True}))
    assert [(one["event"], one["field"]) for one in found["unreadable"]] == [(3, "picture")]


def test_a_vector_elsewhere_or_an_object_is_an_error_in_its_place(service: Service) -> None:
    for event in (click(1, item_id=[1.0, 2.0]), click(1, price=[1.0]), click(1, picture={"0": 1.0})):
        [bad, good] = score(
            service, {"sequences": [{"id": "a", "events": [event]}, {"id": "b", "events": farm(as_text, 2)}]}
        ).json()["results"]
        assert bad["error"]["status"] == 422
        assert "score" in good


def test_live_windows_in_memory_and_in_redis_keep_vectors(
    start_service: Starter, service: Service, folder: Path, redis_server: RedisServer
) -> None:
    shared = start_service(folder / "bundle", live_url=redis_server.url)
    for one in (service, shared):
        for k, event in enumerate(farm(as_text, 4)):
            body = {"events": [{"key": "live", "event_id": f"e{k}", "event": event}], "reasons": 3}
            live = told(one.client.post("/v1/events", json=body))
        assert live["kept"] == 4
        alone = {"sequences": [{"id": "live", "events": farm(as_text, 4)}], "trial": True, "alone": True}
        if one is shared:
            assert live["score"] == pytest.approx(told(score(one, alone))["score"], abs=1e-3)
    assert service.client.get("/v1/drift").status_code == 200


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_windows_that_a_log_warmed_score_as_whole_sequences_do(
    start_service: Starter, folder: Path, tmp_path: Path, name: str
) -> None:
    service = start_service(folder / "bundle")
    events = pl.read_csv(folder / "events.csv", schema_overrides={"sequence_id": pl.String}).drop("event_label")
    parts = [f"picture.{k}" for k in range(WIDTH)]
    lists = events.with_columns(picture=pl.concat_list(parts)).drop(parts)
    events.write_csv(tmp_path / "e.csv")
    lists.write_ndjson(tmp_path / "e.jsonl")
    done = recguard_serve("warm", "--events", tmp_path / name, "--url", service.client.base_url)
    assert done.returncode == 0, done.stderr
    for one in lists["sequence_id"].unique(maintain_order=True).to_list()[:10]:
        before = lists.filter(pl.col("sequence_id") == one).sort("ts").drop("sequence_id").to_dicts()
        event = {**before[-1], "ts": before[-1]["ts"] + 60}
        body = {"sequences": [{"id": one, "events": [*before, event][-64:]}], "trial": True}
        live = told(service.client.post("/v1/events", json={"events": [{"key": one, "event": event}]}))
        assert live["score"] == pytest.approx(told(score(service, body))["score"], abs=1e-3)
        assert "picture" not in live["missing"]


def test_logs_are_scored_and_repaired_with_their_vectors_as_they_were(folder: Path, tmp_path: Path) -> None:
    events = pl.read_csv(folder / "events.csv", schema_overrides={"sequence_id": pl.String}).drop("event_label")
    parts = [f"picture.{k}" for k in range(WIDTH)]
    lists = events.with_columns(picture=pl.concat_list(parts)).drop(parts)
    events.write_csv(tmp_path / "e.csv")
    lists.write_parquet(tmp_path / "e.parquet")
    lists.write_ndjson(tmp_path / "e.jsonl")
    scores = []
    for name in ("e.csv", "e.parquet", "e.jsonl"):
        command("score", "--bundle", folder / "bundle", "--events", tmp_path / name, "--out", tmp_path / f"{name}.csv")
        scores.append(pl.read_csv(tmp_path / f"{name}.csv")["score"].to_numpy())
        out = tmp_path / f"of-{name}"
        command("repair", "--bundle", folder / "bundle", "--events", tmp_path / name, "--out", out)
        undo(out / name, tmp_path / f"again-{name}")
        if name.endswith(".parquet"):
            assert pl.read_parquet(tmp_path / f"again-{name}").equals(lists)
            assert pl.read_parquet(out / name).schema == lists.schema
        else:
            assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert np.allclose(scores[0], scores[1], atol=1e-5)
    assert np.allclose(scores[0], scores[2], atol=1e-5)
