"""What the commands of `recguard-train` share: options, logging, and how errors are shown."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from service.model.bundle import BundleError
from training.apply.crowd import Crowd
from training.verbosity import quieten

if TYPE_CHECKING:
    from training.data.describe import Bars, Description
    from training.data.labels import Labels
    from training.data.log import Log
    from training.data.read import ReadOptions

console = Console()
BLOCKS = " ▁▂▃▄▅▆▇█"  # of a histogram in the terminal
EXTRAS = {
    "pyod": "compare",
    "captum": "compare",
    "implicit": "compare",
    "peft": "options",
    "optuna": "options",
    "tensorboard": "options",
    "opacus": "private",
    "ray": "ray",
    "cryptography": "federate",
    "s3fs": "s3",
    "gcsfs": "gs",
    "adlfs": "az",
    "adbc_driver_postgresql": "sql",
}  # packages that only some commands need, and the extra that installs them

EventsFile = Annotated[
    Path,
    typer.Option(
        "--events",
        help="Event log, one event per row: .csv, .jsonl, .parquet, or a folder of Parquet files; s3://, gs://, az:// "
        "or postgresql:// (with --query) too.",
    ),
]
LabelsFile = Annotated[
    Path, typer.Option("--labels", help="Label table: sequence_id, label (0 or 1, see --positive), optional type.")
]
BundleDir = Annotated[Path, typer.Option("--bundle", help="Bundle directory.")]
ColumnMap = Annotated[str | None, typer.Option("--columns", help="Renames columns of the event log: ours=theirs,...")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Score without columns that the bundle reads and the log lacks.")
]
GroupBy = Annotated[
    str | None, typer.Option("--group-by", help="Column; sequences with the same value stay in one fold.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, only warnings.")]
CrowdOf = Annotated[
    Literal["log", "none"] | None,
    typer.Option(
        "--crowd",
        help="Beside whom each sequence is judged: log, the others of the log as far as they had happened by its last "
        "event, which is the default; or none, alone.",
    ),
]
Hindsight = Annotated[
    bool, typer.Option("--hindsight", help="Judges beside all others of the log, for a log that is complete.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray", help="Run on a Ray cluster: its address, or `local` for this machine.")
]


def crowd_of(crowd: str | None, hindsight: bool) -> Crowd:
    """What the options --crowd and --hindsight ask for; raises ValueError where that cannot be."""
    if hindsight and crowd == "none":
        raise ValueError("--hindsight and --crowd none do not go together: drop one of them")
    return Crowd.HINDSIGHT if hindsight else Crowd(crowd or "log")


@contextmanager
def session(quiet: bool) -> Iterator[bool]:
    """Sets up the log, and yields whether to show progress bars. Errors a user can fix become one line, exit code 2."""
    from training.data.log import LogError

    show = not quiet and sys.stderr.isatty()
    level = logging.WARNING if quiet else logging.INFO
    handler: logging.Handler = (
        RichHandler(console=Console(stderr=True), show_path=False, show_time=False) if show else logging.StreamHandler()
    )
    logging.basicConfig(
        level=logging.WARNING,
        format="%(levelname)s %(message)s" if not show else "%(message)s",
        handlers=[handler],
        force=True,
    )
    quieten(level)
    try:
        yield show
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        message = f"error: {error.name} is not installed; pip install 'recguard[{EXTRAS[error.name]}]'"
        Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    except (LogError, BundleError, FileNotFoundError, ConnectionError, ChildProcessError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


@contextmanager
def bar(show: bool, title: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Shows a progress bar; yields the function that moves it by one and says what was done."""
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, advance=1, description=done)


def labelled(
    events: Path, labels: Path, columns: str | None, group_by: str | None, how: "ReadOptions"
) -> "tuple[Log, Labels]":
    """A clean log and its labels."""
    from training.data.dataset import WHOLE, Dataset
    from training.data.read import parse_columns
    from training.data.split import grouped_by

    data = Dataset.read(events, labels, WHOLE, parse_columns(columns), how=how)
    return data.log, grouped_by(data.log, data.labels, group_by) if group_by else data.labels


def print_metrics(found: dict[str, Any], title: str) -> None:
    """Prints measures of quality as a table."""
    from training.evaluation.quality import NAMES

    table = Table(title=title, title_justify="left", show_header=False)
    for key, words in NAMES.items():
        table.add_row(words, f"{found[key]:.4f}")
    table.add_row("sequences, anomalous", f"{found['sequences']:,}, {found['anomalous']:,}")
    console.print(table)


def print_promise(promise: dict[str, Any]) -> None:
    """Prints what the thresholds promise, and to whom."""
    from training.evaluation.promise import in_words

    for line in in_words(promise):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_description(found: "Description") -> None:
    """Prints what a log holds, and what looks wrong."""
    table = Table("column", "read as", "missing", "different", "examples", "distribution", title_justify="left")
    table.title = f"{found.rows:,} rows, {found.kept:,} of them fit to read, in {found.sequences:,} sequences"
    for c in found.columns:
        read_as = Text.assemble(c.read_as, (f"\n{c.why}", "dim"))
        values = (f"{c.missing:.1%}", f"{c.distinct:,}", Text(", ".join(c.examples)), _drawn(c.bars))
        table.add_row(Text(c.name or '""'), read_as, *values)
    console.print(table)
    more = Table(show_header=False)
    more.add_row("events of a sequence", _drawn(found.events))
    for words, value in (found.times | found.labels).items():
        more.add_row(words, Text(value))
    console.print(more)
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning), soft_wrap=True)


def _drawn(bars: "Bars") -> Text:
    """A distribution in one or two lines."""
    last = len(BLOCKS) - 1
    blocks = "".join(BLOCKS[min(int(height * last + 0.999), last)] for height in bars.heights)
    marks = (" | " if blocks else ", ").join(bars.marks)
    return Text(f"{blocks}\n{marks}" if blocks else marks)


def print_comparison(found: dict[str, Any]) -> None:
    """Prints how a refit compares the old and the new bundle, and the verdict."""
    table = Table("held out", "measure", "old", "new", "change, 95 %")
    rows = [(r["part"], r["measure"], r) for r in found["rows"]]
    rows += [(f"{r['type']} ({r['sequences']})", "recall at 1 % FPR", r) for r in found["types"]]
    for part, measure, row in rows:
        low, high = row["change"]
        table.add_row(part, measure, f"{row['old']:.4f}", f"{row['new']:.4f}", f"{low:+.4f} to {high:+.4f}")
    console.print(table)
    forgot = f"; it has forgotten {', '.join(found['forgotten'])}" if found["forgotten"] else ""
    console.print(f"The new bundle against the old one: {found['verdict']}{forgot}.")
