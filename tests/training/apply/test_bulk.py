"""A log in several Parquet files is scored in parts as it would be whole, over a killed worker and a killed run."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.model.bundle import Bundle
from service.model.scorer import Model
from tests.support.processes import wait_until
from training.apply.bulk import (
    ALL_BAD,
    SCHEMA,
    WORK,
    Plan,
    ask_crowd,
    deal,
    hold_part,
    parts_to_hold,
    score_in_parts,
    score_part,
    score_rows,
    scored_file,
)
from training.apply.crowd import Crowd
from training.data.log import LogError
from training.data.to_score import events_to_score

PART = 700  # rows
Whole = Callable[[Crowd], pl.DataFrame]


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle)


@pytest.fixture(scope="module")
def folder(attacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacked log in three files, cut where sequences are whole or not, with two bad rows."""
    folder = tmp_path_factory.mktemp("parquet")
    log = pl.read_csv(attacked / "events.csv").drop("event_label").cast({"sequence_id": pl.String})
    bad = log.head(2).with_columns(pl.Series("sequence_id", [log["sequence_id"][0], "nobody"]), ts=-1.0)
    log = pl.concat([log, bad])
    log = log.sample(fraction=1, shuffle=True, seed=1)  # a sequence's rows lie anywhere, and in any order
    for number, start in enumerate(range(0, log.height, -(-log.height // 3))):
        log.slice(start, -(-log.height // 3)).write_parquet(folder / f"day-{number}.parquet", row_group_size=500)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The scores of the log when it is read at once."""
    file = tmp_path_factory.mktemp("whole") / "events.parquet"
    pl.read_parquet(folder / "*.parquet").write_parquet(file)
    log = events_to_score(file, model.bundle.encoder).log

    @cache
    def scores(crowd: Crowd) -> pl.DataFrame:
        return pl.DataFrame([row for row, _ in score_rows(model, log, crowd)], SCHEMA, orient="row")

    return scores


def assert_same(out: Path, whole: pl.DataFrame) -> None:
    found = pl.read_parquet(out / "part-*.parquet")
    assert not found["sequence_id"].is_duplicated().any()
    assert set(found["sequence_id"]) == {*whole["sequence_id"], "nobody"}
    assert found.filter(pl.col("sequence_id") == "nobody")["reason"].to_list() == [ALL_BAD]
    both = whole.join(found, on="sequence_id", suffix="_in_parts")
    assert len(both) == len(whole)
    assert np.abs(both["score"].to_numpy() - both["score_in_parts"].to_numpy()).max() <= 1.5e-6
    sure = both.filter((pl.col("score") - pl.col("score_in_parts")).abs() == 0)
    assert len(sure) > 0.5 * len(both)
    assert (sure["decision"] == sure["decision_in_parts"]).all()
    bad = pl.concat(pl.read_csv(file, infer_schema=False) for file in out.glob("*.rejected.csv"))
    assert len(bad) == 2
    assert "nobody" in bad["sequence_id"]


@pytest.mark.parametrize("crowd", Crowd)
def test_parts_score_as_the_whole_and_an_interrupted_run_goes_on(
    folder: Path, bundle: Bundle, model: Model, whole: Whole, tmp_path: Path, crowd: Crowd
) -> None:
    out = tmp_path / "out"
    plan = Plan.of(folder, bundle, {}, PART, crowd=crowd)
    Plan.begin(out, plan)
    for piece in plan.pieces():
        deal(plan, piece, out)
    waiting = parts_to_hold(plan, out)
    assert len(waiting) == (0 if crowd is Crowd.NONE else plan.parts)
    for part in waiting[1:]:
        hold_part(bundle, plan, part, out)
    assert parts_to_hold(plan, out) == waiting[:1]
    for part in parts_to_hold(plan, out):
        hold_part(bundle, plan, part, out)
    ask_crowd(plan, bundle, out, lambda steps, *_: steps)
    first = [score_part(model, plan, part, out).sequences for part in range(plan.parts // 2)]
    times = [scored_file(out, part).stat().st_mtime_ns for part in range(plan.parts // 2)]
    Plan.begin(out, plan)  # as after a crash, with half a file there
    (out / "part-00099.parquet.new").write_bytes(b"half")
    tally = score_in_parts(model, plan, out, lambda steps, *_: steps, processes=2 if crowd is Crowd.LOG else 1)
    assert (tally.scored, tally.unscored, tally.aside) == (len(whole(crowd)), {ALL_BAD: 1}, 2)
    assert sum(first) == sum(pl.read_parquet(scored_file(out, part)).height for part in range(plan.parts // 2))
    assert [scored_file(out, part).stat().st_mtime_ns for part in range(plan.parts // 2)] == times
    assert_same(out, whole(crowd))


def test_the_crowds_of_the_log_say_something(whole: Whole) -> None:
    scores = [whole(crowd)["score"].to_list() for crowd in Crowd]
    assert all(one != other for k, one in enumerate(scores) for other in scores[:k])


def test_what_cannot_be_scored_says_why(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such Parquet file"):
        Plan.of(tmp_path, bundle, {}, PART)
    with pytest.raises(LogError, match="--columns sequence_id=user: no column 'user'; present: sequence_id"):
        Plan.of(folder, bundle, {"sequence_id": "user"}, PART)
    with pytest.raises(LogError, match="--columns ts=item_id: a column 'ts' exists already"):
        Plan.of(folder, bundle, {"ts": "item_id"}, PART)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(LogError, match=r"broken\.parquet: cannot be read"):
        Plan.of(tmp_path, bundle, {}, PART)
    out = tmp_path / "out"
    plan = Plan.of(folder, bundle, {}, PART)
    Plan.begin(out, plan)
    with pytest.raises(LogError, match="another model"):
        Plan.begin(out, replace(plan, version="2"))
    with pytest.raises(LogError, match="another model or crowd"):
        Plan.begin(out, replace(plan, crowd=Crowd.LOG))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(LogError, match="holds files already"):
        Plan.begin(tmp_path / "full", plan)


@pytest.mark.parametrize("first", ["numbers", "moments of a zone"])
def test_files_that_differ_in_types_and_columns_in_folder_names_are_one_log(
    attacked: Path, bundle: Bundle, model: Model, tmp_path: Path, first: str
) -> None:
    log = pl.read_csv(attacked / "events.csv", infer_schema=False).drop("event_label").head(1500)
    log = log.unique(["sequence_id", "ts"], maintain_order=True)  # the order of equal times is that of the files
    ids = {name: str(at) for at, name in enumerate(log["sequence_id"].unique(maintain_order=True))}
    log = log.with_columns(pl.col("sequence_id").replace_strict(ids), ts=pl.col("ts").cast(pl.Float64))
    log.write_csv(tmp_path / "whole.csv")
    expected = [row for row, _ in score_rows(model, events_to_score(tmp_path / "whole.csv", bundle.encoder).log)]
    root = tmp_path / "log"
    as_moments = pl.from_epoch((pl.col("ts") * 1e6).round().cast(pl.Int64), "us")
    for number, ((action,), part) in enumerate(log.partition_by("action", as_dict=True, include_key=False).items()):
        (root / f"action={action}").mkdir(parents=True)
        half = part.height // 2
        typed = part.head(half).with_columns(pl.col("sequence_id").cast(pl.Int64), pl.col("price").cast(pl.Float64))
        if first != "numbers":
            in_zone = as_moments.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
            typed = typed.with_columns(ts=in_zone.dt.cast_time_unit("ns"))
        other = part.tail(-half).with_columns(pl.col("sequence_id").cast(pl.Float64), ts=as_moments)
        typed.write_parquet(root / f"action={action}" / f"{number}-typed.parquet")
        other.write_parquet(root / f"action={action}" / f"{number}-other.parquet")
    plan = Plan.of(root, bundle, {}, PART)
    tally = score_in_parts(model, plan, tmp_path / "out", lambda steps, *_: steps)
    assert (tally.scored, tally.unscored, tally.aside) == (len(ids), {}, 0)
    found = {row[0]: row for row in pl.read_parquet(tmp_path / "out" / "*.parquet").iter_rows()}
    assert found.keys() == set(ids.values())
    for row in expected:
        assert row[1] is not None
        assert found[row[0]][1] == pytest.approx(row[1], abs=1e-5)


def test_times_of_a_log_in_parts_have_one_unit(
    attacked: Path, bundle: Bundle, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = pl.read_csv(attacked / "events.csv", infer_schema=False).drop("event_label").head(300)
    in_milliseconds = (pl.col("ts").cast(pl.Float64) * 1000).round().cast(pl.Int64)
    early = log.head(3).with_columns(pl.Series("sequence_id", ["early"] * 3), ts=pl.Series([5, 6, 7]))
    log = pl.concat([log.with_columns(ts=in_milliseconds), early])
    log.write_parquet(tmp_path / "log.parquet")
    whole = events_to_score(tmp_path / "log.parquet", bundle.encoder)
    expected = [row for row, _ in score_rows(model, whole.log)]
    caplog.clear()
    # nearly each sequence is a part; so few have no crowd
    plan = Plan.of(tmp_path / "log.parquet", bundle, {}, rows_of_part=1, crowd=Crowd.LOG)
    tally = score_in_parts(model, plan, tmp_path / "out", lambda steps, *_: steps)
    assert (tally.scored, tally.unscored, tally.aside) == (len(expected), {ALL_BAD: 1}, 3)
    found = {row[0]: row for row in pl.read_parquet(tmp_path / "out" / "*.parquet").iter_rows()}
    assert [found[row[0]][1] for row in expected] == pytest.approx([row[1] for row in expected], abs=1e-5)
    assert caplog.text.count("ts is read as ms") == 1
    bad = "log.parquet: 3 of 3 rows are bad: 3 where ts is not in the unit of the others (first at row"
    assert caplog.text.count(bad) == 1


RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from service.model.bundle import Bundle
from training.apply.crowd import Crowd
from training.distributed.scoring import score_on_ray
bundle, events, out = map(Path, sys.argv[1:4])
print(score_on_ray("local", Bundle.open(bundle), events, out, {}, rows_of_part=%d, crowd=Crowd(sys.argv[4])).sequences)
"""


@pytest.mark.slow
@pytest.mark.parametrize("crowd", [Crowd.LOG, Crowd.HINDSIGHT])
def test_killed_workers_and_runs_miss_nothing_and_score_nothing_twice(
    folder: Path, bundle: Bundle, whole: Whole, tmp_path: Path, crowd: Crowd
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"

    def start() -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("ab") as log:
            command = [sys.executable, "-c", RUN % PART, str(bundle.path), str(folder), str(out), crowd]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def parts() -> set[Path]:
        return set(out.glob("part-*.parquet"))

    def under_way(process: "subprocess.Popen[bytes]", before: int) -> None:
        def more() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return len(parts()) > before

        wait_until(more, 240)

    process = start()
    under_way(process, 0)
    process.kill()  # the whole run; what its workers were at is lost
    process.wait()
    subprocess.run(["pkill", "-9", "-f", "ray::"], check=False)
    time_of = {part: part.stat().st_mtime_ns for part in parts()}
    assert (out / WORK).exists(), "killed too late to prove anything"
    process = start()
    under_way(process, len(time_of))
    subprocess.run(["pkill", "-9", "-f", r"ray::.*ScorePart"], check=True)  # its workers; Ray starts others
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    assert {part: part.stat().st_mtime_ns for part in time_of} == time_of
    assert not (out / WORK).exists()
    assert_same(out, whole(crowd))
    assert str(len(whole(crowd)) + 1) in (tmp_path / "log").read_text().splitlines()
