"""A log's sequences are judged alone, beside the others as far as they had happened, or beside all of them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.model.bundle import Bundle
from service.model.scorer import Model
from service.model.togetherness import FEWEST_KNOWN
from tests.support.logs import genuine_log
from training.apply.bulk import ScoreRow, score_rows
from training.apply.crowd import Crowd
from training.apply.repair import repair_log
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject
from training.data.log import Log
from training.data.to_score import events_to_score

CAMPAIGN, FIRST = 20, 4  # accounts
ATTACKED = InjectConfig(size=0.1, campaigns=(CAMPAIGN,), seed=3)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle)


@pytest.fixture(scope="module", params=["timed", "untimed"])
def copied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A log of new users with a campaign of copies that no training saw, and who takes part; with times or without."""
    folder = tmp_path_factory.mktemp("copied")
    genuine = genuine_log(200, seed=5)
    if request.param == "untimed":
        genuine = genuine.with_columns(ts=pl.lit(None, dtype=pl.Float64))
    genuine.write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    events, labels, _ = inject(log, None, ATTACKED, ["copy_rerated"])
    events.drop("event_label").write_csv(folder / "events.csv")
    return folder / "events.csv", set(labels.filter(pl.col("label") == 1)["sequence_id"])


def flagged(model: Model, log: Log, crowd: Crowd) -> set[str]:
    return {row.sequence_id for row, _ in score_rows(model, log, crowd) if row.decision != "allow"}


def log_of(model: Model, events: Path) -> Log:
    return events_to_score(events, model.bundle.encoder, allow_missing=True).log


def test_copies_are_seen_beside_the_crowd_and_not_alone(model: Model, copied: tuple[Path, set[str]]) -> None:
    events, members = copied
    log = log_of(model, events)
    alone, beside, after = (flagged(model, log, crowd) for crowd in (Crowd.NONE, Crowd.LOG, Crowd.HINDSIGHT))
    assert len(alone & members) < 0.5 * len(members)
    assert len(beside & members) >= len(members) - FIRST  # the first of them have nobody to be like yet
    assert len(after & members) >= len(members) - FIRST
    genuine = set(log.ids) - members
    # a tenth of the genuine users may be flagged, and those who are copied look like their copies where no time is told
    allowed = 0.1 * len(genuine) + (0 if "ts" in log.events and log.events["ts"].count() else len(members))
    assert len(beside - members) <= allowed


def test_a_score_beside_the_log_is_of_what_had_happened(model: Model, copied: tuple[Path, set[str]]) -> None:
    log = log_of(model, copied[0])
    if np.isnan(log.ends).any():
        pytest.skip("without times, all of it is there from the start")
    middle = float(np.median(log.ends))
    early = np.flatnonzero(log.ends <= middle)

    def scores(some: Log) -> dict[str, ScoreRow]:
        return {row.sequence_id: row for row, _ in score_rows(model, some, Crowd.LOG)}

    whole = scores(log)
    before = log.events.filter(pl.col("ts") <= middle)
    part = scores(Log.of(before, log.reading))
    for i in early.tolist():
        one, other = whole[log.ids[i]], part[log.ids[i]]
        assert one.score == pytest.approx(other.score, abs=1e-3)
        assert one.decision == other.decision


def test_few_accounts_are_each_judged_alone(model: Model, copied: tuple[Path, set[str]]) -> None:
    log = log_of(model, copied[0])
    few = log.subset(np.arange(FEWEST_KNOWN))
    assert [row for row, _ in score_rows(model, few, Crowd.HINDSIGHT)] == [row for row, _ in score_rows(model, few)]
    enough = log.subset(np.arange(FEWEST_KNOWN + 1))
    assert all(answer is not None and answer.together for _, answer in score_rows(model, enough, Crowd.HINDSIGHT))


def test_repair_drops_copies_beside_the_log_however_it_is_dealt_out(
    model: Model, copied: tuple[Path, set[str]], tmp_path: Path
) -> None:
    events, members = copied

    def repaired(out: Path, crowd: Crowd, part_bytes: int) -> tuple[dict[str, float], dict[str, str]]:
        """The score of each account, and how those are treated that are not let pass."""
        repair_log(model, events, out, "auto", allow_missing=True, part_bytes=part_bytes, crowd=crowd)
        weights = pl.read_csv(out / "weights.csv", schema_overrides={"sequence_id": pl.String})
        touched = weights.filter(pl.col("decision") != "allow")
        return dict(zip(weights["sequence_id"], weights["score"], strict=True)), dict(
            zip(touched["sequence_id"], touched["strategy"], strict=True)
        )

    (one, touched), (many, too) = (
        repaired(tmp_path / name, Crowd.HINDSIGHT, size) for name, size in (("one", 64_000_000), ("many", 100_000))
    )
    assert one.keys() == many.keys()
    away = np.abs([one[name] - many[name] for name in one])
    # without times, accounts come in the order in which they are dealt out, and scores differ a little
    timed = pl.read_csv(events).get_column("ts", default=pl.Series([None])).count() > 0
    assert touched == too or not timed
    assert away.max() < 0.05
    assert np.mean(away < 0.01) > 0.98
    assert len(members & touched.keys()) >= len(members) - FIRST
    _, alone = repaired(tmp_path / "alone", Crowd.NONE, 64_000_000)
    assert len(members & alone.keys()) < 0.5 * len(members)
