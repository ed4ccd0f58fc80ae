"""Commands that make and show logs; `main` puts them into the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.cli.common import ColumnMap, EventsFile, Quiet, console, print_description, session
from training.cli.options import Kinds, Missing, Seed, Text, reads_log
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions, parse_columns


def _sizes(campaigns: str) -> tuple[int, ...]:
    """The numbers of accounts that --campaigns was given, separated by commas."""
    sizes = [size.strip() for size in campaigns.split(",")]
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ValueError(f"--campaigns {campaigns}: numbers of accounts, whole and above 0, separated by commas")
    return tuple(map(int, sizes))


@reads_log
def describe(
    events: EventsFile,
    labels: Annotated[Path | None, typer.Option("--labels", help="Label table of the log.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="HTML file for the same.")] = None,
    columns: ColumnMap = None,
    kinds: Kinds = "",
    text: Text = "",
    missing: Missing = FitConfig.missing,
    how: ReadOptions = AS_FOUND,
) -> None:
    """Shows what a log holds before a fit: what each column will be read as and why, and what looks wrong."""
    with session(quiet=True):
        from training.data.dataset import WHOLE, Dataset
        from training.data.describe import describe as described
        from training.data.doubts import unsaid
        from training.evaluation.description import render

        config = replace(WHOLE, kinds=kinds, text=text, missing=missing)
        with unsaid():  # for they are part of what is shown
            found = described(Dataset.read(events, labels, config, parse_columns(columns), how=how))
        print_description(found)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(render(found, events.name))
            console.print(f"wrote {out}", soft_wrap=True)


@reads_log
def inject(
    events: EventsFile,
    out: Annotated[Path, typer.Option("--out", help="Directory for events.csv, labels.csv and sources.csv.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Label table of the log, carried over with its group columns.")
    ] = None,
    types: Annotated[
        str | None,
        typer.Option("--types", help="Attack types, separated by commas; by default all that the log allows."),
    ] = None,
    size: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Attack users of each type, as a share of the genuine users.")
    ] = 0.05,
    filler: Annotated[
        str,
        typer.Option(help="Filler items of a shilling profile, as shares of the catalogue: LOW,HIGH or one number."),
    ] = "0.03,0.05",
    campaigns: Annotated[
        str,
        typer.Option(help="Accounts of a campaign, which share targets: sizes, taken in turn, separated by commas."),
    ] = "10",
    surges: Annotated[
        str,
        typer.Option(
            help="Surges of genuine users, separated by commas: hit (a third of them takes up one new item within "
            "three days), sale (a tenth buys of ten items within two hours)."
        ),
    ] = "",
    columns: ColumnMap = None,
    seed: Seed = 0,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Adds labelled attack users to a log: shilling, click farms, crawlers, order rings, takeovers, copies, and others.

    labels.csv says in the column `campaign` who acts together, and in `surge` which genuine users were part of a surge.
    """
    with session(quiet):
        from training.data import injection
        from training.data.catalogue import InjectConfig
        from training.data.clean import clean_events
        from training.data.labels import read_label_table

        shares = [float(part) for part in filler.split(",")]
        if len(shares) > 2 or not all(0 < share < 1 for share in shares):
            raise ValueError(f"--filler {filler}: one or two shares of the catalogue between 0 and 1")
        config = InjectConfig(
            size=size,
            filler=(min(shares), max(shares)),
            campaigns=_sizes(campaigns),
            surges=tuple(surges.split(",")) if surges else (),
            seed=seed,
        )
        log, _ = clean_events(events, parse_columns(columns), aside=out / "rejected.csv", how=how)
        carried = read_label_table(labels, how) if labels else None
        found = injection.inject(log, carried, config, types.split(",") if types else None)
        injection.write(out, *found)
        for line in injection.said(found[1]):
            console.print(line, soft_wrap=True)
        console.print(f"wrote {out / 'events.csv'}, {out / 'labels.csv'} and {out / 'sources.csv'}", soft_wrap=True)


def actions(
    kind: Annotated[
        Literal["order", "takeover"],
        typer.Option(
            "--kind",
            help="order: sessions as systems log them, the anomalous ones with the same actions in a wrong order; "
            "takeover: long histories of users, whose end is another user's in the anomalous ones.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory for events.csv and labels.csv.")],
    accounts: Annotated[int, typer.Option(min=8, help="Sequences; a quarter is anomalous.")] = 400,
    seed: Seed = 0,
) -> None:
    """Makes a labelled log of actions alone, where anomalies show in nothing but order, or in a change of habits."""
    with session(quiet=False):
        from training.data import actions as source

        source.write(out, *source.actions(kind, accounts, seed))
        console.print(f"wrote {out / 'events.csv'} and {out / 'labels.csv'}", soft_wrap=True)


def movielens(
    out: Annotated[Path, typer.Option("--out", help="Directory for events.csv and labels.csv.")],
    cache: Annotated[Path, typer.Option("--cache", help="Directory where the download is kept.")],
) -> None:
    """Downloads MovieLens-100K and writes it as a log; its terms forbid passing it on."""
    with session(quiet=False):
        from training.data import movielens as source

        console.print(source.TERMS, style="dim", soft_wrap=True)
        source.write_log(source.fetch(cache), out)
