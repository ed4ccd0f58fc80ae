"""The command that finds campaigns in a log; `main` puts it into the command line."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from service.model.bundle import Bundle
from training.cli.common import AllowMissing, ColumnMap, EventsFile, Quiet, console, session
from training.cli.options import Kinds, reads_log
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions, parse_columns

if TYPE_CHECKING:
    from service.model.scorer import Model
    from training.data.log import Log

FEW = 10  # campaigns that the terminal shows


@reads_log
def campaigns(
    events: EventsFile,
    out: Annotated[
        Path, typer.Option("--out", help="Directory for campaigns.csv, members.csv, campaigns.json and campaigns.html.")
    ],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Bundle that reads the log; its scores stand beside the members.")
    ] = None,
    columns: ColumnMap = None,
    kinds: Kinds = "",
    allow_missing: AllowMissing = False,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Finds groups of accounts that act together: who, what they share and push, when, and how unlikely by chance."""
    with session(quiet):
        from service.model.scorer import Model
        from training.apply.campaigns import find_campaigns, said, to_json, write
        from training.apply.pictures import pictures
        from training.evaluation.campaign_pages import render

        if bundle is not None and kinds:
            raise ValueError("--kinds and --bundle do not go together: the bundle knows what its columns hold")
        model = Model.load(Bundle.open(bundle)) if bundle is not None else None
        log = _read(events, out, model, parse_columns(columns), kinds, allow_missing, how)
        groups = find_campaigns(log, model)
        found = to_json(groups)
        write(out, found)
        (out / "campaigns.html").write_text(render(found, pictures(groups), events.name))
        table = Table("campaign", "members", "expected by chance", "pushes", "accounts", "usual")
        for c in found["campaigns"][:FEW]:
            first, number = c["pushed"][0], (str(c["campaign"]), str(len(c["members"])))
            what = said(first) + (f" and {len(c['pushed']) - 1} more" if len(c["pushed"]) > 1 else "")
            table.add_row(
                *number, f"10^{c['log10_expected']:.1f}", what, str(first["accounts"]), f"{first['usual']:.3g}"
            )
        if found["campaigns"]:
            console.print(table)
        members = sum(len(c["members"]) for c in found["campaigns"])
        counts = f"{len(found['campaigns'])} campaigns with {members} of {found['accounts']} accounts"
        console.print(f"{counts}; see {out / 'campaigns.html'}", soft_wrap=True, markup=False, highlight=False)


def _read(
    events: Path,
    out: Path,
    model: "Model | None",
    columns: dict[str, str],
    kinds: str,
    allow_missing: bool,
    how: ReadOptions,
) -> "Log":
    """The log, as a bundle reads it or as it is; bad rows go to `rejected.csv` of the output folder."""
    from training.data.clean import clean_events
    from training.data.to_score import events_to_score

    aside = out / "rejected.csv"
    if model is not None:
        return events_to_score(events, model.bundle.encoder, columns, aside, allow_missing, how).log
    config = replace(FitConfig(), kinds=kinds)
    return clean_events(events, columns, aside=aside, reading=config.reading, how=how, told=config.told)[0]
