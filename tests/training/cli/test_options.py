"""The command line offers what FitConfig says of its settings, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from training.cli.main import app
from training.cli.options import SETTINGS, configure, fit_option, with_fit_options
from training.config import FitConfig

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
        (["--augment", "0.95"], "'--augment': Input should be less than or equal to 0.9"),
        (["--layers", "0"], "'--layers': Input should be greater than or equal to 1"),
        (["--prevalence", "0"], "'--prevalence': Input should be greater than or equal to 0.000001"),
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
