"""The command line offers what FitConfig says of its settings, and nothing else."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_group
from typer.testing import CliRunner

from tests.support.stores import BUCKET, object_store
from training.cli.common import EventsFile, LabelsFile
from training.cli.main import app
from training.cli.options import READING, SETTINGS, configure, fit_option, reads_log, with_fit_options
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions

runner = CliRunner()


def given(*arguments: str) -> dict[str, Any]:
    """The settings that a command gets for these arguments."""
    caught: list[dict[str, Any]] = []
    small = typer.Typer()

    @small.command()
    @with_fit_options
    def command(out: Path, **settings: Any) -> None:
        caught.append(settings)

    done = runner.invoke(small, ["somewhere", *arguments])
    assert done.exit_code == 0, done.output
    return caught[0]


def test_every_option_reaches_its_setting() -> None:
    value = {int: 2, float: 0.25, str: "tiny"}
    for name, (kind, _) in SETTINGS.items():
        [option] = fit_option(name).param_decls or [fit_option(name).default]
        wanted = next(v for k, v in value.items() if kind in (k, k | None))
        settings = given(option, str(wanted))
        assert settings.keys() == SETTINGS.keys()
        assert settings[name] == wanted, option


def test_what_is_not_given_stays_as_it_is() -> None:
    assert configure(**given()) == FitConfig()
    assert configure(**given("--lora", "4", "--seed", "7")) == replace(FitConfig(), lora_rank=4, seed=7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--augment", "0.95"], "Invalid value for '--augment': "),
        (["--layers", "0"], "Invalid value for '--layers': "),
        (["--prevalence", "0"], "Invalid value for '--prevalence': "),
        (["--cost-fp", "1"], "--cost-fp and --cost-fn belong together"),
        (["--teacher", "giant"], "giant: there are the presets tiny, small, base"),
        (["--preset", "giant"], "--preset giant: there are tiny, small, base"),
        (["--tune", "2"], "--tune needs --labels"),
        (["--mask-rate", "0.5"], "No such option"),
    ],
)
def test_settings_that_cannot_be_say_why(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = runner.invoke(app, ["fit", "--events", "e.csv", "--out", str(tmp_path / "b"), *arguments])
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("\u2502", " ").split())


def test_help_shows_every_option_with_its_words_and_its_default() -> None:
    done = runner.invoke(app, ["fit", "--help"], env={"COLUMNS": "250"})
    shown = " ".join(done.output.replace("\u2502", " ").split())
    for name, (_, said) in SETTINGS.items():
        assert f"--{said.name or name.replace('_', '-')} " in shown
        assert said.help in shown
    assert "Encoder: tiny, small, base; only base starts from pretrained weights. [default: tiny]" in shown


def read_with(*arguments: str) -> dict[str, Any]:
    """What a command that reads a log gets for these arguments."""
    caught: list[dict[str, Any]] = []
    small = typer.Typer()

    @small.command()
    @reads_log
    def command(events: EventsFile, labels: LabelsFile, how: ReadOptions = AS_FOUND) -> None:
        caught.append({"events": events, "labels": labels, "how": how, "content": events.read_text()})

    done = runner.invoke(small, arguments)
    assert done.exit_code == 0, done.output
    return caught[0]


def test_every_command_with_a_log_has_the_options_of_reading() -> None:
    commands = get_group(app).commands.items()
    options = {name: {option for p in one.params for option in p.opts} for name, one in commands}
    reading = {f"--{name.replace('_', '-')}" for name in [*READING, "query"]}
    assert {*READING, "found_unit"} == {field.name for field in fields(ReadOptions)}
    assert {name for name, given in options.items() if "--events" in given} == {
        name for name, given in options.items() if reading <= given
    }


def test_what_is_told_of_a_log_reaches_its_reader(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("x")
    files = ["--events", str(tmp_path / "e.csv"), "--labels", "l.csv"]
    assert read_with(*files)["how"] == AS_FOUND
    told = ["--separator", "tab", "--encoding", "gbk", "--time-unit", "ms", "--time-zone", "Asia/Tokyo"]
    told += ["--time-format", "%d/%m/%Y", "--positive", "fraud"]
    got = read_with(*files, *told)
    assert got["how"] == ReadOptions("\t", "gbk", "ms", "Asia/Tokyo", "%d/%m/%Y", "fraud")
    assert (got["events"], got["labels"]) == (tmp_path / "e.csv", Path("l.csv"))


def test_a_log_of_an_object_store_is_there_while_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(monkeypatch) as store:
        for name in ("e.csv", "l.csv"):
            store.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
        got = read_with("--events", f"s3://{BUCKET}/e.csv", "--labels", f"s3://{BUCKET}/l.csv")
    assert got["content"] == "e.csv"
    assert got["labels"].name == "l.csv"
    assert not got["events"].exists()


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    done = runner.invoke(app, ["inject", "--events", "s3://logs/e.csv", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "error: s3fs is not installed; pip install 'recguard[s3]'" in done.output


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (["--time-zone", "Mars"], "--time-zone 'Mars': no such zone"),
        (["--query", "select 1"], "--query is for a database, and e.csv is none"),
    ],
)
def test_what_cannot_be_told_of_a_log_ends_in_one_line(tmp_path: Path, told: list[str], says: str) -> None:
    done = runner.invoke(app, ["inject", "--events", "e.csv", "--out", str(tmp_path), *told])
    assert done.exit_code == 2
    assert f"error: {says}" in done.output
