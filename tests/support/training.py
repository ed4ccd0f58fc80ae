"""`recguard-train` within the test's own process, and a fit that takes little time."""

from typer.testing import CliRunner

from training.cli.main import app
from training.config import FitConfig

QUICK = FitConfig(preset="tiny", layers=1, epochs=1, folds=1)
runner = CliRunner()


def command(*arguments: object) -> str:
    """Runs recguard-train and gives what it printed; fails the test on an error."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: object) -> str:
    """The same where an error is expected: gives what it said in one line."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())
