"""The commands of `recguard-train` that measure how good models are, and how much they help."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from service.model.bundle import Bundle
from training.cli.common import (
    BundleDir,
    ColumnMap,
    EventsFile,
    GroupBy,
    LabelsFile,
    Quiet,
    bar,
    console,
    labelled,
    print_metrics,
    session,
)
from training.cli.options import Preset, Pretrained, Seed, configure, reads_log
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions, parse_columns


def named(option: str, given: str, known: Collection[str]) -> list[str]:
    """The names that an option was given, separated by commas; raises ValueError on one that is not known."""
    names = given.split(",")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{option} {unknown[0]}: there are {', '.join(known)}")
    return names


@reads_log
def evaluate(
    events: EventsFile,
    labels: LabelsFile,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Evaluate this bundle on the log.")] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Refit for each fold of a cross-validation instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for evaluation.json; needed with --folds.")
    ] = None,
    columns: ColumnMap = None,
    group_by: GroupBy = None,
    preset: Preset = FitConfig.preset,
    pretrained: Pretrained = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Measures quality: of a bundle on a labelled log, or of refits over folds."""
    with session(quiet) as show:
        from training.experiments.cross_validation import evaluate_bundle, evaluate_folds

        if (bundle is None) == (folds is None):
            raise ValueError("give either --bundle or --folds")
        if bundle is not None and group_by is not None:
            raise ValueError("--group-by is about folds; a bundle is evaluated on the whole log")
        if bundle is not None:
            found = evaluate_bundle(Bundle.open(bundle), events, labels, out, parse_columns(columns), how)
        else:
            if out is None:
                raise ValueError("--folds needs --out, where each fold is kept as it finishes")
            log, known = labelled(events, labels, columns, group_by, how)
            found = evaluate_folds(
                log, known, folds or 0, configure(seed=seed, preset=preset, pretrained=pretrained), out, not show
            )
        print_metrics(found.to_json(), f"{events}")


@reads_log
def compare(
    events: EventsFile,
    labels: LabelsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory for the page, its JSON and the cells.")],
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Names of methods as in the table, separated by semicolons; by default all."),
    ] = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="Compare the parts of our model instead: each alone, and each left out.")
    ] = False,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="With --parts: also for each type that training is not shown; a fit each.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Compare what finds campaigns among the genuine users; no fit, no folds.")
    ] = False,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    columns: ColumnMap = None,
    group_by: GroupBy = None,
    pretrained: Pretrained = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Compares our model with others on the same folds, its parts, or groups; a stopped run goes on where it was."""
    with session(quiet) as show:
        chosen = [name for name, asked in (("parts", parts), ("groups", groups), ("methods", bool(methods))) if asked]
        if len(chosen) > 1:
            raise ValueError(f"--{chosen[0]} and --{chosen[1]} do not go together: drop one of them")
        if unseen and not parts:
            raise ValueError("--unseen goes with --parts")
        from training.experiments.baselines import METHODS

        names = [name.strip() for name in methods.split(";")] if methods else list(METHODS)
        if unknown := [name for name in names if name not in METHODS]:
            raise ValueError(f"--methods {unknown[0]!r}: there are {'; '.join(METHODS)}")
        log, known = labelled(events, labels, columns, group_by, how)
        config = configure(seed=seed, pretrained=pretrained)
        if parts:
            from training.experiments.parts import parts as measure

            with bar(show, "comparing") as advance:
                found = measure(log, known, out, config, folds, unseen, advance)
            _print_parts(found)
        elif groups:
            from training.experiments.groups import groups as find

            with bar(show, "comparing") as advance:
                _print_groups(find(log, known, out, advance))
        else:
            from training.experiments.compare import compare as run

            with bar(show, "comparing", len(names) * folds) as advance:
                found = run(log, known, out, config, folds, names, advance)
            _print_methods(found)
        name = "parts" if parts else "groups" if groups else "compare"
        console.print(f"wrote {out / name}.html and {out / name}.json", soft_wrap=True)


def _print_methods(found: dict[str, Any]) -> None:
    table = Table("method", "AUC", "average precision", "F1", "recall at 1 % FPR", "fit, s", "ms")
    for name, row in found["rows"].items():
        values = [f"{row[m][0]:.4f}" for m in ("auc", "average_precision", "f1", "recall_at_1_fpr")]
        table.add_row(name, *values, f"{row['fit_seconds']:.1f}", f"{row['milliseconds']:.2f}")
    console.print(table)


def _print_parts(found: dict[str, Any]) -> None:
    """The measures of whole histories; the others are on the page."""
    table = Table("parts", "average precision", "recall at 1 % FPR", "AUC of events", "AP behind all, 95 %")
    for name, row in found["rows"]["whole"]["variants"].items():
        told = [row[m] for m in ("average_precision", "recall_at_1_fpr", "event_auc")]
        behind = "{:+.4f} to {:+.4f}".format(*row["behind_all"])
        table.add_row(name, *(f"{of[0]:.4f}" if of else "" for of in told), behind)
    console.print(table)


def _print_groups(found: dict[str, Any]) -> None:
    """Members of campaigns of 10 accounts and more; the others are on the page."""
    table = Table("log", "kind", "finder", "precision", "recall", "purity")
    for row in found["rows"]:
        told = [row["precision_10"], row["recall_10"], [row["purity"]]]
        shown = ["" if of is None or of[0] is None else f"{of[0]:.3f}" for of in told]
        table.add_row(row["log"], row["kind"], row["finder"], *shown)
    console.print(table)


@reads_log
def study(
    events: EventsFile,
    labels: LabelsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory for study.html, study.json and the cells.")],
    parts: Annotated[
        str, typer.Option("--parts", help="Parts of the study, separated by commas.")
    ] = "all,labels,unseen",
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    columns: ColumnMap = None,
    preset: Preset = FitConfig.preset,
    pretrained: Pretrained = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Studies our model: few labels, unseen and adapting attacks, faithful blame, how early, who acts together."""
    with session(quiet) as show:
        from training.experiments.study import PARTS
        from training.experiments.study import study as run

        wanted = named("--parts", parts, PARTS)
        log, known = labelled(events, labels, columns, None, how)
        with bar(show, "studying") as advance:
            run(log, known, out, configure(seed=seed, preset=preset, pretrained=pretrained), folds, wanted, advance)
        console.print(f"wrote {out / 'study.html'} and {out / 'study.json'}", soft_wrap=True)


@reads_log
def impact(
    events: EventsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory for impact.html, impact.json and the cells.")],
    types: Annotated[str | None, typer.Option("--types", help="Attacks that push items, separated by commas.")] = None,
    sizes: Annotated[str, typer.Option(help="Attackers, as shares of the genuine users.")] = "0.01,0.03,0.05,0.1",
    attacks: Annotated[int, typer.Option(min=1, help="Attacks of each type and size.")] = 1,
    columns: ColumnMap = None,
    preset: Preset = FitConfig.preset,
    pretrained: Pretrained = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Poisons a genuine log, repairs it, and measures recommenders on each; a stopped run goes on where it was."""
    with session(quiet) as show:
        from training.data.clean import clean_events
        from training.experiments.impact import AUTO, PUSHING
        from training.experiments.impact import impact as run

        wanted = named("--types", types, PUSHING) if types else None
        shares = [float(part) for part in sizes.split(",")]
        if not all(0 < share <= 1 for share in shares):
            raise ValueError(f"--sizes {sizes}: shares of the genuine users, above 0 and at most 1")
        log, _ = clean_events(events, parse_columns(columns), aside=out / "rejected.csv", how=how)
        with bar(show, "measuring") as advance:
            found = run(
                log, out, configure(seed=seed, preset=preset, pretrained=pretrained), wanted, shares, attacks, advance
            )
        table = Table("recommender", "attackers", "types", "hit ratio", "efficiency", "NDCG, change")
        for row in found["rows"]:
            if row["repair"] == AUTO:
                shown = [f"{row[n][0]:.3f}" if row[n] else "" for n in ("hit", "efficiency", "ndcg_change")]
                table.add_row(row["recommender"], f"{row['size']:.0%}", row["types"], *shown)
        console.print(table)
        console.print(f"wrote {out / 'impact.html'} and {out / 'impact.json'}", soft_wrap=True)


@reads_log
def stream(
    events: EventsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory for stream.html, stream.json and the cells.")],
    types: Annotated[str, typer.Option("--types", help="New attacks, one per stream, separated by commas.")] = "",
    days: Annotated[float, typer.Option(min=0.01, help="Days of a period; models are fitted again at its end.")] = 14.0,
    periods: Annotated[int, typer.Option(min=2)] = 6,
    verdicts: Annotated[int, typer.Option(min=1, help="Verdicts given in each period.")] = 20,
    columns: ColumnMap = None,
    preset: Preset = FitConfig.preset,
    pretrained: Pretrained = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Counts verdicts and time until a new attack in a stream is caught; a stopped run goes on where it was."""
    with session(quiet) as show:
        from training.data.attacks import ATTACKS
        from training.data.clean import clean_events
        from training.experiments.stream import TYPES, Plan, caught
        from training.experiments.stream import stream as run

        wanted = named("--types", types, ATTACKS) if types else list(TYPES)
        log, _ = clean_events(events, parse_columns(columns), aside=out / "rejected.csv", how=how)
        with bar(show, "streaming", len(wanted)) as advance:
            plan = Plan(days, periods, verdicts)
            found = run(log, out, configure(seed=seed, preset=preset, pretrained=pretrained), wanted, plan, advance)
        table = Table("new attack", "way", "caught on day", "verdicts", "on it", "fits, s", "flagged at the end")
        for kind, one in found["types"].items():
            for way, steps in one["steps"].items():
                step = caught(steps, "flagged")
                when = [f"{step[n]:g}" for n in ("day", "verdicts", "on_new")] if step else ["never", "", ""]
                spent = f"{step['seconds']:.0f}" if step else ""
                table.add_row(kind, way, *when, spent, f"{steps[-1]['flagged'][0]:.3f}")
        console.print(table)
        console.print(f"wrote {out / 'stream.html'} and {out / 'stream.json'}", soft_wrap=True)


@reads_log
def privacy(
    bundle: BundleDir,
    events: Annotated[Path, typer.Option("--events", help="The log that the bundle was fitted on.")],
    labels: Annotated[Path, typer.Option("--labels", help="Its labels.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for privacy.html and privacy.json.")],
    others: Annotated[
        Path | None,
        typer.Option("--others", help="Log of accounts that the bundle was not fitted on, the more the better."),
    ] = None,
    other_labels: Annotated[
        Path | None, typer.Option("--other-labels", help="Their labels; without these, all count as genuine.")
    ] = None,
    holders: Annotated[int, typer.Option(min=2, help="Accounts that must hold what may be named.")] = 5,
    shadows: Annotated[
        int, typer.Option(min=0, help="Pairs of shadow models; each takes two fits on half of the log, 0 needs none.")
    ] = 4,
    columns: ColumnMap = None,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Measures what a bundle gives away: who was in its training, and what it names that hardly anybody holds."""
    with session(quiet) as show:
        from training.evaluation.privacy_pages import verdict
        from training.experiments.privacy import privacy as run

        if shadows == 1:
            raise ValueError("--shadows 1: one pair does not tell how much models differ; give 2 or more, or 0")
        opened, names = Bundle.open(bundle), parse_columns(columns)
        with bar(show, "attacking", 2 * shadows) as advance:
            found = run(opened, events, labels, out, others, other_labels, holders, shadows, names, how, advance)
        table = Table("attack", "AUC", *(f"found at {float(rate):.1%}" for rate in found["rates"]))
        for name, attack in found["attacks"].items():
            shown = [attack["auc"], *(attack["found"][rate] for rate in found["rates"])]
            table.add_row(name, *("{:.4f} ({:.4f} to {:.4f})".format(*of) if of else "" for of in shown))
        console.print(table)
        console.print(verdict(found), soft_wrap=True, markup=False, highlight=False)
        table = Table("file", f"what fewer than {holders} accounts hold", "number")
        for row in found["named"]:
            table.add_row(row["file"], row["what"], f"{row['count']:,}")
        console.print(table)
        console.print(f"wrote {out / 'privacy.html'} and {out / 'privacy.json'}", soft_wrap=True)
