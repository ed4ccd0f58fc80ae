"""The command `recguard-train`: its commands that fit, apply and report; others are in `logs` and `measure`."""

import csv
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.progress import track

from service.model.bundle import Bundle
from training.apply.crowd import Crowd
from training.cli.campaigns import campaigns
from training.cli.common import (
    AllowMissing,
    BundleDir,
    ColumnMap,
    CrowdOf,
    EventsFile,
    Hindsight,
    Quiet,
    RayAddress,
    bar,
    console,
    crowd_of,
    print_comparison,
    print_metrics,
    print_promise,
    session,
)
from training.cli.embed import embed
from training.cli.federate import federate
from training.cli.logs import actions, describe, inject, movielens
from training.cli.measure import compare, evaluate, impact, privacy, stream, study
from training.cli.options import configure, reads_log, with_fit_options
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions, parse_columns

if TYPE_CHECKING:
    from training.apply.tally import Tally
    from training.data.labels import Labels
    from training.data.log import Log
    from training.data.split import Indices

app = typer.Typer(
    help="Trains, evaluates and applies recguard models offline.", no_args_is_help=True, pretty_exceptions_enable=False
)


def _search(trials: int, show: bool, log: "Log", labels: "Labels", at: "Indices", config: FitConfig) -> FitConfig:
    from training.fit.tune import tune

    with bar(show, "searching", trials) as advance:
        return tune(log, labels, at, config, trials, advance)


@app.command()
@reads_log
@with_fit_options
def fit(
    events: EventsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory of the new bundle.")],
    labels: Annotated[Path | None, typer.Option("--labels", help="Label table; without it, novelty decides.")] = None,
    columns: ColumnMap = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model; by default the directory's.")] = None,
    tune: Annotated[
        int, typer.Option(min=0, help="Trials of a search for better settings; each takes about as long as a fit.")
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted fit left off.")] = False,
    without: Annotated[
        Path | None,
        typer.Option("--without", help="File of sequence_ids, one a line: fits as if the log had never had them."),
    ] = None,
    ray: RayAddress = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together, with --ray.")] = 2,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Fits a model on a log, preferably with labels, and writes a bundle for the service."""
    with session(quiet) as show, TemporaryDirectory(prefix="recguard-") as folder:
        from training.apply.without import without as left_out
        from training.fit.bundle import fit_bundle

        config = configure(**settings)
        if tune and labels is None:
            raise ValueError("--tune needs --labels: without them there is nothing to measure by")
        search = partial(_search, tune, show) if tune else None
        if ray is None:
            fit_here: Callable[..., Bundle] = partial(fit_bundle, search=search)
        else:
            from training.distributed.training import fit_on_ray

            if tune:
                raise ValueError("--tune and --ray do not go together: search on one machine, then fit")
            fit_here = partial(fit_on_ray, ray, workers)
        mapping = parse_columns(columns)
        if without is not None:
            events, labels = left_out(without, events, labels, Path(folder), mapping, how)
        bundle = fit_here(events, labels, out, config, mapping, name, not show, resume=resume, how=how)
        if tested := bundle.manifest["metrics"]["test"]:
            print_metrics(tested, f"{bundle.name} {bundle.version}, test part")
        print_promise(bundle.manifest["promise"])
        console.print(f"bundle: {out}   report: {out / 'report.html'}", soft_wrap=True)


@app.command()
@reads_log
def refit(
    bundle: BundleDir,
    feedback: Annotated[Path, typer.Option("--feedback", help="Directory that `recguard-serve export` wrote.")],
    events: Annotated[Path, typer.Option("--events", help="The log the bundle was fitted on; it is replayed.")],
    labels: Annotated[Path, typer.Option("--labels", help="Its labels.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the new bundle.")],
    columns: ColumnMap = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model; by default the old one's.")] = None,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Refits a bundle with people's verdicts on its answers; exit code 3 if the new one is not better."""
    with session(quiet) as show:
        from training.fit.refit import BETTER
        from training.fit.refit import refit as run

        found = run(Bundle.open(bundle), feedback, events, labels, out, parse_columns(columns), name, not show, how)
        print_comparison(found)
        print_promise(Bundle.open(out).manifest["promise"])
        console.print(f"bundle: {out}   report: {out / 'report.html'}", soft_wrap=True)
        if found["verdict"] != BETTER:
            raise typer.Exit(3)


@app.command()
@reads_log
def score(
    bundle: BundleDir,
    events: EventsFile,
    out: Annotated[
        Path, typer.Option("--out", help="CSV file: sequence_id,score,decision,type,reason; for a large log, a folder.")
    ],
    event_scores: Annotated[
        Path | None, typer.Option("--event-scores", help="CSV file with a score for each event.")
    ] = None,
    crowd: CrowdOf = None,
    hindsight: Hindsight = False,
    ray: RayAddress = None,
    columns: ColumnMap = None,
    allow_missing: AllowMissing = False,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Scores a log with a bundle: one row per sequence, in first-seen order, with a reason if it cannot be scored.

    The log may be a folder of Parquet files of any size. Then the result is a folder too, and each of its files holds
    some of the sequences. An interrupted call goes on when it is repeated. The same holds with --ray. The exit code is
    2 if nothing could be scored, and 1 if more than 5 % of the sequences could not, or of the rows were bad.
    """
    with session(quiet) as show:
        follow, opened = partial(track, console=Console(stderr=True), disable=not show), Bundle.open(bundle)
        whole = ray is None and not events.is_dir()
        if event_scores and not whole:
            raise ValueError("--event-scores is for a log of one file, scored without --ray")
        beside = crowd_of(crowd, hindsight)
        if whole:
            done = _score_file(
                opened, events, out, event_scores, parse_columns(columns), allow_missing, how, follow, beside
            )
        else:
            done = _score_parts(opened, events, out, ray, parse_columns(columns), allow_missing, how, follow, beside)
        usual = opened.manifest["training_data"]["missing"]
        console.print(done.said(out, usual), soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(done.exit_code)


def _score_parts(
    bundle: Bundle,
    events: Path,
    out: Path,
    ray: str | None,
    columns: dict[str, str],
    allow_missing: bool,
    how: ReadOptions,
    follow: Callable[..., Any],
    crowd: Crowd,
) -> "Tally":
    """Scores a log of any size into a folder, here or on Ray; returns what was done."""
    from service.model.scorer import Model
    from training.apply.bulk import ROWS_OF_PART, Plan, score_in_parts

    if ray is None:
        plan = Plan.of(events, bundle, columns, ROWS_OF_PART, allow_missing, how, crowd)
        return score_in_parts(Model.load(bundle), plan, out, follow, processes=0)
    from training.distributed.scoring import score_on_ray

    return score_on_ray(ray, bundle, events, out, columns, follow, allow_missing=allow_missing, how=how, crowd=crowd)


def _score_file(
    bundle: Bundle,
    events: Path,
    out: Path,
    event_scores: Path | None,
    columns: dict[str, str],
    allow_missing: bool,
    how: ReadOptions,
    follow: Callable[..., Any],
    crowd: Crowd,
) -> "Tally":
    """Scores a log of one file into a CSV file, and its events into another one if asked for; returns what was done."""
    from service.model.scorer import Model
    from training.apply.bulk import SCHEMA, all_rows, score_rows
    from training.data.to_score import events_to_score

    aside = out.with_name(out.name + ".rejected.csv")
    given = events_to_score(events, bundle.encoder, columns, aside, allow_missing, how)
    model = Model.load(bundle)
    out.parent.mkdir(parents=True, exist_ok=True)
    scored = []
    with ExitStack() as files:
        event_rows = csv.writer(files.enter_context(event_scores.open("w", newline=""))) if event_scores else None
        if event_rows:
            event_rows.writerow(["sequence_id", "event", "score"])
        for row, answer in follow(score_rows(model, given.log, crowd), "scoring", len(given.log)):
            scored.append(row)
            if event_rows and answer:
                event_rows.writerows([row[0], i, f"{s:.6g}"] for i, s in enumerate(answer.events))
    found, tally = all_rows(given, scored, bundle.encoder)
    with out.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(SCHEMA)
        rows.writerows(found)
    return tally


@app.command()
@reads_log
def repair(
    events: Annotated[
        Path,
        typer.Option("--events", help="Log to repair: .csv, .jsonl (also .gz), .parquet; with --undo, a repaired log."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Directory for the repaired log, weights and audit; with --undo, a file.")
    ],
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Bundle that judges.")] = None,
    strategy: Annotated[
        str, typer.Option(help="auto (by decision and type), weight, drop_events, drop_sequence or correct.")
    ] = "auto",
    crowd: CrowdOf = None,
    hindsight: Hindsight = False,
    undo: Annotated[bool, typer.Option("--undo", help="Writes the log as it was before its repair.")] = False,
    columns: ColumnMap = None,
    allow_missing: AllowMissing = False,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Writes a log without its anomalies, with weights for sequences and events; --undo restores the log."""
    with session(quiet) as show:
        from service.model.repair import Choice
        from service.model.scorer import Model
        from training.apply import repair as repairing
        from training.data.log import LogError

        if undo:
            typer.echo(f"{repairing.undo(events, out)} rows are back in {out}")
            return
        if bundle is None:
            raise LogError("--bundle is missing: which model shall judge?")
        if strategy not in (strategies := (*get_args(Choice), "correct")):
            raise LogError(f"--strategy {strategy!r}: there are {', '.join(strategies)}")
        model = Model.load(Bundle.open(bundle))
        found = repairing.repair_log(
            model,
            events,
            out,
            cast(repairing.LogChoice, strategy),
            parse_columns(columns),
            allow_missing,
            how=how,
            crowd=crowd_of(crowd, hindsight),
            track=partial(track, description="scoring parts", console=Console(stderr=True), disable=not show),
        )
        done = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(found.strategies.items()))
        rows = f"{found.dropped} of {found.rows} rows dropped, {found.corrected} corrected"
        typer.echo(f"{rows}; of {found.sequences} sequences: {done}; see {out}")


@app.command()
def report(bundle: BundleDir, out: Annotated[Path, typer.Option("--out", help="HTML file.")]) -> None:
    """Writes a bundle's report as one HTML page: first for whoever must say yes, then in detail."""
    with session(quiet=False):
        from training.evaluation import report as page

        opened = Bundle.open(bundle)
        out.write_text(page.render(opened.manifest, json.loads((opened.path / "evaluation.json").read_text())))
        console.print(f"wrote {out}", soft_wrap=True)


@app.command()
@reads_log
def demo(
    bundle: BundleDir,
    events: EventsFile,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8080,
    traffic: Annotated[
        float, typer.Option(min=0, help="Seconds of live traffic, with a campaign in it; 0: none. It needs item_id.")
    ] = 0.0,
    how: ReadOptions = AS_FOUND,
) -> None:
    """Serves a bundle, scores some of its held-back sequences over HTTP, and keeps serving until Ctrl-C."""
    with session(quiet=False):
        from training.cli.demo import run

        raise typer.Exit(run(bundle, events, port, console, how, traffic))


for command in (
    describe,
    embed,
    federate,
    inject,
    actions,
    movielens,
    campaigns,
    evaluate,
    compare,
    study,
    impact,
    stream,
    privacy,
):
    app.command()(command)


if __name__ == "__main__":
    app()
