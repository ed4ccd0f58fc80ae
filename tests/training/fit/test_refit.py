"""Going on from a bundle with verdicts: nothing known is moved, nothing is called better that is not."""

import json
import uuid
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from service import cli
from service.encoding.fields import Bins
from service.encoding.vocabulary import Vocabulary
from service.model.bundle import Bundle
from service.model.scorer import Model
from service.stores.verdicts import Store
from tests.support.logs import genuine_log
from tests.support.training import refused
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.evaluation.quality import recall_at_fpr
from training.fit.encoder import fit_encoder
from training.fit.networks import WEIGHTS, untrained
from training.fit.refit import ALIKE, BETTER, WORSE, compared, held_out, measures, refit
from training.network.model import carry_over


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a store with verdicts on new sequences: attackers, genuine users, and items never seen before."""
    folder = tmp_path_factory.mktemp("feedback")
    genuine = genuine_log(60, seed=9).with_columns(item_id=pl.col("item_id").str.replace("i1", "a1"))
    events, labels, _ = inject(Log.of(genuine), None, InjectConfig(0.1, (0.1, 0.3), campaigns=(3,), seed=9))
    log, known = Log.of(events), dict(labels.select("sequence_id", "type").iter_rows())
    store = Store("", folder / "state")
    for sequence_id in log.ids:
        own = events.filter(pl.col("sequence_id") == sequence_id).drop("sequence_id", "event_label")
        kind = known[sequence_id]
        score_id = uuid.uuid5(uuid.NAMESPACE_OID, sequence_id).hex
        row = {
            **{"score_id": score_id, "time": 1.7e9, "sequence_id": sequence_id, "user_id": None, "version": "1"},
            **{"score": 0.5, "decision": "review", "type": "unknown", "share": 1.0},
            "events": json.dumps(own.to_dicts()),
        }
        said = {"note": None, "who": "ann"}
        if sequence_id == log.ids[0]:
            store.say(score_id, {"verdict": "normal" if kind else "anomalous", "type": None, **said}, row)
        store.say(score_id, {"verdict": "anomalous" if kind else "normal", "type": kind, **said}, row)
    store.close()
    ran = CliRunner().invoke(cli.app, ["export", "--out", str(folder), "--state-dir", str(folder / "state")])
    assert ran.exit_code == 0
    assert f"{len(log)} judged sequences written, 1 with contradicting verdicts" in ran.output
    written = pl.read_csv(folder / "labels.csv")
    assert written["label"].sum() == sum(kind is not None for kind in known.values())
    assert set(written["type"].drop_nulls()) == {kind for kind in known.values() if kind}
    return folder


@pytest.mark.slow
def test_a_refit_knows_more_and_says_how_it_compares(
    bundle: Bundle, attacked: Path, feedback: Path, tmp_path: Path
) -> None:
    found = refit(
        bundle, feedback, attacked / "events.csv", attacked / "labels.csv", tmp_path / "new", name="next", quiet=True
    )
    new = Bundle.open(tmp_path / "new")
    Model.load(new)
    assert new.name == "next"
    assert new.manifest["refit"] == json.loads(json.dumps(found))
    assert found["from"] == bundle.version
    assert found["verdict"] in (BETTER, ALIKE, WORSE)
    assert {r["part"] for r in found["rows"]} == {"all held out", "old log", "judged"}
    values = next(f.values for f in new.encoder.fields if isinstance(f, Vocabulary) and f.name == "item_id")
    old_values = next(f.values for f in bundle.encoder.fields if isinstance(f, Vocabulary) and f.name == "item_id")
    assert set(old_values) < set(values)
    assert any(v.startswith("a1") for v in values)
    assert "Compared with the previous bundle" in (tmp_path / "new" / "report.html").read_text()
    judged = next(r for r in found["rows"] if (r["part"], r["measure"]) == ("judged", "AUC"))
    assert judged["new"] > 0.7


def test_a_row_keeps_its_vector_wherever_the_new_table_has_it(bundle: Bundle, feedback: Path) -> None:
    log, _ = clean_events(feedback / "events.jsonl")
    old = bundle.encoder
    encoder = fit_encoder(log, None, old.max_positions, old)
    assert [f for f in encoder.fields if isinstance(f, Bins)] == [f for f in old.fields if isinstance(f, Bins)]
    types = ["one of its own", *reversed(bundle.types)]
    model = untrained(encoder, [], len(types), FitConfig(preset="tiny"))
    weights = load_file(bundle.path / WEIGHTS)
    carried = carry_over(model, encoder, types, weights, old, bundle.types)
    assert 0 < carried < encoder.deep_rows
    before = weights["bert.embeddings.word_embeddings.weight"]
    meaning = {old.meaning(row): row for row in range(old.deep_rows)}
    items = next(s for s in encoder.of("event") if s.field.name == "item_id")
    same = [row for row in range(items.start + 2, items.end) if encoder.meaning(row) in meaning]
    assert len(same) > 50
    old_rows = [meaning[encoder.meaning(row)] for row in same]
    assert same != old_rows, "values that came between have moved them"
    assert torch.equal(model.table.weight[same], before[old_rows])
    assert torch.equal(model.type_head.weight[1:], weights["type_head.weight"].flip(0))


def test_held_out_stays_held_out_and_is_some_three_in_ten() -> None:
    drawn = [held_out(f"user {i}") for i in range(2000)]
    assert 0.25 < np.mean(drawn) < 0.35
    assert drawn == [held_out(f"user {i}") for i in range(2000)]


def labelled(count: int, seed: int) -> tuple[Labels, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 4 == 0).astype(np.int8)
    types = [("a" if i % 8 else "b") if y else None for i, y in enumerate(label)]
    return (
        Labels(np.ones(count, dtype=bool), label, types, [None] * count, pl.DataFrame()),
        label + rng.normal(0, 0.6, count),
        rng.random(count) < 0.3,
    )


@given(st.integers(0, 2**32 - 1))
def test_measures_of_resamples_are_those_of_the_sequences_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, score = (rng.random(40) < 0.4).astype(np.int8), rng.integers(0, 12, 40) / 11
    weights = np.stack((np.ones(40, dtype=np.int64), rng.multinomial(40, np.full(40, 1 / 40))))
    for found, w in zip(measures(label, score, weights).T, weights, strict=True):
        drawn = np.repeat(np.arange(40), w)
        if len(set(label[drawn].tolist())) < 2:
            assert np.isnan(found).all()
            continue
        of = label[drawn], score[drawn]
        assert found == pytest.approx([average_precision_score(*of), roc_auc_score(*of), recall_at_fpr(*of, 0.01)])


def test_better_is_only_what_is_surely_better_and_forgets_nothing() -> None:
    truth, before, judged = labelled(400, 0)
    assert compared(truth, before, before, judged)["verdict"] == ALIKE
    better = before + 1.0 * truth.label
    assert compared(truth, before, better, judged)["verdict"] == BETTER
    assert compared(truth, better, before, judged)["verdict"] == WORSE
    of_b = np.array([t == "b" for t in truth.types])
    forgetful = np.where(of_b, -1.0, before + 3.0 * truth.label)
    found = compared(truth, better, forgetful, judged)
    assert found["forgotten"] == ["b"]
    assert found["verdict"] == WORSE
    slightly = before + np.random.default_rng(1).normal(0, 0.01, 400)
    assert compared(truth, before, slightly, judged)["verdict"] == ALIKE


def test_what_cannot_be_refitted_says_why(bundle: Bundle, attacked: Path, feedback: Path, tmp_path: Path) -> None:
    events, labels = attacked / "events.csv", attacked / "labels.csv"
    with pytest.raises(LogError, match="not the log"):
        refit(bundle, feedback, feedback / "events.jsonl", labels, tmp_path / "new")
    broken = tmp_path / "broken"
    broken.mkdir()
    lines = (feedback / "events.jsonl").read_text().splitlines()
    (broken / "events.jsonl").write_text("\n".join(line if i % 2 else line[:20] for i, line in enumerate(lines)))
    (broken / "labels.csv").write_bytes((feedback / "labels.csv").read_bytes())
    log = ("--events", events, "--labels", labels)
    said = refused("refit", "--bundle", bundle.path, "--feedback", broken, *log, "--out", tmp_path / "new")
    assert str(broken / "events.jsonl") in said
    assert not (tmp_path / "new").exists()
