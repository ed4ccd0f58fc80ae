"""Tests of a private fit: it finds attackers, never the same way twice, and each account has a part of its own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing
from sklearn.metrics import roc_auc_score

from training.cli.main import app
from training.config import FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import set_aside, split
from training.distributed.federated_fit import Files, fit_together
from training.distributed.training import fit_on_ray
from training.fit.bundle import fit_bundle
from training.fit.pipeline import fit_model
from training.fit.private import check_private

pytest.importorskip("opacus")
CONFIG = FitConfig(dp_epsilon=8.0, dp_delta=1e-4)


def test_it_finds_attackers_and_two_fits_differ(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    parts = split(log, labels, 0.2, 0, by_name=True)
    first, second = (fit_model(log, labels, parts.train, replace(CONFIG, seed=seed)) for seed in (0, 1))
    evidence = first.evidence(log.subset(parts.test))
    scores = first.calibration.score(evidence)
    assert roc_auc_score(labels.label[parts.test], scores) > 0.75
    assert first.calibration.weights != second.calibration.weights
    again = fit_model(log, labels, parts.train, CONFIG)
    assert again.calibration.weights != first.calibration.weights, "noise is of no seed that anybody knows"
    assert first.released is not None
    for ledger in first.released.ledgers.values():
        assert ledger.total <= 8.0
    assert not (np.array(first.calibration.weights)[:, :2]).any(), "an untrained network says nothing"


def test_who_leaves_the_log_changes_nobodys_part(labelled: tuple[Log, Labels]) -> None:
    log, labels = labelled
    whole = split(log, labels, 0.2, 0, by_name=True)
    aside = set_aside(log, labels, whole.train, 0, by_name=True)
    names = [{log.ids[i] for i in part.tolist()} for part in (whole.test, aside.others, aside.aside)]
    assert all(len(part) > 20 for part in names)
    for out in range(0, len(log), 37):
        at = np.delete(np.arange(len(log)), out)
        rest, of_rest = log.subset(at), labels.subset(at)
        again = split(rest, of_rest, 0.2, 0, by_name=True)
        left = set_aside(rest, of_rest, again.train, 0, by_name=True)
        found = [{rest.ids[i] for i in part.tolist()} for part in (again.test, left.others, left.aside)]
        assert found == [part - {log.ids[out]} for part in names]


def test_a_delta_that_may_tell_an_account_in_full_is_refused(labelled: tuple[Log, Labels]) -> None:
    _, labels = labelled
    check_private(CONFIG, labels)
    for delta in (1 / len(labels.label), 0.5, 0.0):
        with pytest.raises(ValueError, match="well below 1 / "):
            check_private(replace(CONFIG, dp_delta=delta), labels)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_an_epsilon_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="give a number above 0"):
        replace(CONFIG, dp_epsilon=epsilon).check_private()


@pytest.mark.parametrize("setting", [{"preset": "base"}, {"layers": 1}, {"mixed": 0.9}])
def test_settings_of_a_network_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a private model has no network"):
        replace(CONFIG, **setting).check_private()


def test_without_its_extra_it_says_what_to_install(
    attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    given = ("--events", str(attacked / "events.csv"), "--labels", str(attacked / "labels.csv"))
    asked = ("fit", *given, "--out", str(tmp_path / "no"), "--dp-epsilon", "8", "--dp-delta", "1e-4")
    done = typer.testing.CliRunner().invoke(app, asked)
    assert done.exit_code == 2
    assert "error: opacus is not installed; pip install 'recguard[private]'" in done.output


FITS: dict[str, Callable[[Path], Any]] = {
    "--tune": lambda at: fit_bundle(at, at, at / "no", CONFIG, search=lambda log, labels, some, config: config),
    "--resume": lambda at: fit_bundle(at, at, at / "no", CONFIG, resume=True),
    "--ray": lambda at: fit_on_ray("local", 2, at, at, at / "no", CONFIG),
    "federate": lambda at: fit_together(dict.fromkeys("abc", Files(at, at)), at / "no", CONFIG, b"a secret of sites"),
}


@pytest.mark.parametrize("way", FITS)
def test_no_fit_goes_a_way_that_would_tell_more(way: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{way} and --dp-epsilon do not go together"):
        FITS[way](tmp_path)
    assert not list(tmp_path.iterdir())
