import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.model.calibration import CHANNELS, Evidence
from tests.support.html import Page
from tests.support.logs import genuine_log
from tests.support.training import QUICK, command, refused
from training.data.actions import actions
from training.data.catalogue import InjectConfig
from training.data.cuts import in_time_order
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import folds
from training.evaluation.quality import recall_at_fpr
from training.experiments.baselines import BOOSTING
from training.experiments.parts import ALL, ALONE, MEASURES, NONE, PARTS, VARIANTS, WHOLE, WITHOUT, masked, parts
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

KEPT = ("click_farm", "takeover")


@pytest.fixture(scope="module")
def some() -> tuple[Log, Labels]:
    """Enough genuine users for a crowd in each fold, and attackers of two types, of which one is anomalous in part."""
    events, table, _ = inject(Log.of(genuine_log(400)), None, InjectConfig(size=0.05, campaigns=(2,)), list(KEPT))
    log = in_time_order(Log.of(events))
    return log, Labels.of(log.ids, table)


@pytest.fixture(scope="module")
def first(some: tuple[Log, Labels]) -> tuple[Fitted, np.ndarray]:
    """The fit of the first of two folds, and where that fold's sequences are."""
    log, labels = some
    rest, fold = folds(labels, 2, QUICK.seed)[0]
    return fit_model(log, labels, rest, QUICK), fold


def same(a: Evidence, b: Evidence) -> bool:
    names = [f.name for f in fields(Evidence) if f.name != "together"]
    told = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return told and np.array_equal(a.together.measures, b.together.measures, equal_nan=True)


def test_a_part_that_is_left_out_says_the_same_of_everybody(first: tuple[Fitted, np.ndarray]) -> None:
    told = first[0].told.evidence
    evidence = replace(told, straying=np.arange(float(len(told))))  # in so short a log nobody has a past
    assert same(masked(evidence, PARTS), evidence)
    for part, name in WITHOUT.items():
        left = masked(evidence, VARIANTS[name])
        assert not same(left, evidence)
        assert same(masked(left, VARIANTS[name]), left)
        assert same(masked(left, {part}), masked(evidence, ()))
    nothing = masked(evidence, ())
    assert np.ptp(nothing.channels, axis=0).tolist() == [0.0] * 6
    assert not nothing.together.known.any()
    assert not nothing.events.any()
    assert not nothing.foreign_events.any()
    assert not nothing.types.any()
    by_network = np.full_like(evidence.types, 0.25)
    assert masked(evidence, {"network"}, by_network).types == pytest.approx(by_network)
    assert masked(evidence, {"linear"}, by_network).types == pytest.approx(evidence.types - 0.25)


def test_with_all_parts_the_calibration_is_that_of_the_fit(first: tuple[Fitted, np.ndarray]) -> None:
    fitted = first[0]
    assert fitted.told.calibration(QUICK.prevalence) == fitted.calibration
    without = replace(fitted.told, evidence=masked(fitted.told.evidence, VARIANTS[WITHOUT["linear"]]))
    assert np.array(without.calibration(None).weights)[:, CHANNELS.index("linear")].max() == 0


def test_some_of_a_log_is_judged_beside_all_of_it_as_it_is_within(
    some: tuple[Log, Labels], first: tuple[Fitted, np.ndarray]
) -> None:
    """Nobody is a copy of himself, whoever asks."""
    fitted, fold = first
    log, every_third = some[0].subset(fold), np.arange(0, len(fold), 3)
    within = fitted.evidence(log, log, hindsight=True).together.measures[every_third]
    beside = fitted.evidence(log.subset(every_third), log, hindsight=True).together.measures
    np.testing.assert_array_equal(beside, within)
    assert np.nanmax(beside[:, 1:]) > 0


@pytest.mark.slow
def test_each_part_is_measured_alone_and_left_out_on_each_slice(
    some: tuple[Log, Labels], first: tuple[Fitted, np.ndarray], tmp_path: Path
) -> None:
    done: list[str] = []
    found = parts(*some, tmp_path, QUICK, 2, advance=done.append)
    assert list(found["rows"]) == [WHOLE, "first 10", "latest 20", *(f"type {kind}" for kind in KEPT)]
    for row in found["rows"].values():
        assert list(row["variants"]) == [*VARIANTS, BOOSTING]
        assert row["variants"][ALL]["behind_all"] == [0.0, 0.0]
        for told in row["variants"].values():
            for value, low, high in (told[m] for m in MEASURES if told[m]):
                assert low <= value <= high
    whole = found["rows"][WHOLE]["variants"]
    assert found["rows"]["type click_farm"]["variants"][BOOSTING]["average_precision"][0] > 0.9
    assert whole[BOOSTING]["event_auc"] is None
    assert whole[ALL]["average_precision"][0] > whole[NONE]["average_precision"][0] + 0.2
    assert found["rows"]["type takeover"]["variants"][ALL]["event_auc"][0] > 0.5
    assert found["rows"]["type click_farm"]["variants"][ALL]["event_auc"] is None
    assert all(low > 0 for _, low, _ in found["microseconds"].values())

    fitted, fold = first
    test = some[0].subset(fold)
    evidence = fitted.evidence(test, beside=test)
    assert evidence.together.known.any()
    score = fitted.calibration.score(evidence)
    cell = json.loads((tmp_path / "cells" / "parts-ours-0.json").read_text())["result"]["slices"][WHOLE]
    assert cell["score"][ALL] == pytest.approx(score, abs=1e-4)
    pooled = [json.loads((tmp_path / "cells" / f"parts-ours-{k}.json").read_text()) for k in (0, 1)]
    label, kind = (np.concatenate([c["result"]["slices"][WHOLE][n] for c in pooled]) for n in ("label", "type"))
    of_all = np.concatenate([c["result"]["slices"][WHOLE]["score"][ALL] for c in pooled])
    assert whole[ALL]["recall_at_1_fpr"][0] == pytest.approx(recall_at_fpr(label, of_all, 0.01))
    assert found["rows"]["type takeover"]["anomalous"] == (kind == "takeover").sum()

    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert len(stamps) == len(done) == 2 * (1 + 3)
    assert parts(*some, tmp_path, QUICK, 2) == found
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()} == stamps
    page = Page((tmp_path / "parts.html").read_text())
    assert {*ALONE.values(), *WITHOUT.values(), BOOSTING} <= {cell for row in page.rows for cell in row}


@pytest.mark.slow
def test_a_type_that_training_was_not_shown_has_a_row_of_its_own_fit(some: tuple[Log, Labels], tmp_path: Path) -> None:
    rows = parts(*some, tmp_path, QUICK, 2, unseen=True)["rows"]
    for kind in KEPT:
        assert rows[f"unseen {kind}"]["anomalous"] == some[1].types.count(kind)
    unseen, shown = (
        rows[f"{what} click_farm"]["variants"][BOOSTING]["average_precision"] for what in ("unseen", "type")
    )
    assert unseen[0] < shown[0]


@pytest.mark.slow
def test_a_log_without_a_crowd_or_an_early_anomaly_has_no_such_column_and_no_such_row(tmp_path: Path) -> None:
    events, table = actions("takeover", 80, 0)
    latest = events.with_row_index().group_by("sequence_id", maintain_order=True).tail(120).sort("index")
    log = Log.of(latest.drop("index"))
    found = parts(log, Labels.of(log.ids, table), tmp_path, QUICK, 2)
    assert list(found["rows"]) == [WHOLE, "latest 20", "type takeover"]
    assert not {ALONE["crowd"], WITHOUT["crowd"]} & set(found["rows"][WHOLE]["variants"])
    assert found["microseconds"]["crowd"] is None
    assert ["crowd", "no crowd"] in Page((tmp_path / "parts.html").read_text()).rows


def test_the_command_compares_parts_or_methods(tmp_path: Path) -> None:
    command("actions", "--kind", "order", "--accounts", 60, "--out", tmp_path)
    given = ("--events", tmp_path / "events.csv", "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out")
    assert "drop one of them" in refused("compare", *given, "--parts", "--methods", BOOSTING)
    assert "3 sequences of a class are in one of 5 folds, and 5 are needed; choose fewer" in refused(
        "compare", *given, "--parts"
    )
    assert not (tmp_path / "out" / "cells").exists()  # it is said before the first fit
    assert "--unseen goes with --parts" in refused("compare", *given, "--unseen")
    assert "there are ours, default; ours, small;" in refused("compare", *given, "--methods", "none such")
    said = command("compare", *given, "--methods", BOOSTING, "--folds", 2, "--quiet")
    assert "compare.html" in said
    assert pl.read_csv(tmp_path / "events.csv").columns == ["sequence_id", "action", "event_label"]
