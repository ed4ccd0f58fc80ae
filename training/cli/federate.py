"""The command `recguard-train federate`: several shops fit one model, and none shows its log."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from training.cli.common import ColumnMap, Quiet, console, print_metrics, session
from training.cli.options import configure, with_fit_options
from training.config import FitConfig
from training.data.log import LogError
from training.data.read import parse_columns

LEAST_KEY = 16  # bytes


@with_fit_options
def federate(
    site: Annotated[list[str], typer.Option("--site", help="NAME=EVENTS,LABELS of a site; three or more of them.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for a bundle of each site.")],
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Secret of the sites, for the same rows in each fit; else random.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=1.0, help="Minutes after which a site that sends nothing is left out.")
    ] = 120.0,
    proximal: Annotated[
        float, typer.Option("--proximal", min=0.0, help="Pull of a site's network towards that of all (FedProx's mu).")
    ] = FitConfig.proximal,
    columns: ColumnMap = None,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Fits one model on the logs of several sites, of which each keeps its own; --epochs are the rounds.

    Each site runs in a process of its own. They exchange masked sums and the weights of networks, as they would over a
    network. Each ends with a bundle that has its own values, calibration and thresholds.
    """
    with session(quiet):
        from training.distributed.federated_fit import fit_together

        key = secrets.token_bytes(32) if key_file is None else key_file.read_bytes().strip()
        if len(key) < LEAST_KEY:
            raise ValueError(
                f"{key_file}: {len(key)} bytes; {LEAST_KEY} are needed, for example of openssl rand -hex 32"
            )
        sites, config = dict(map(_site, site)), replace(configure(**settings), proximal=proximal)
        if len(sites) < len(site):
            raise ValueError("--site: two sites have one name; give each a name of its own")
        bundles = fit_together(sites, out, config, key, parse_columns(columns), seconds=60 * wait)
        for name, bundle in bundles.items():
            if tested := bundle.manifest["metrics"]["test"]:
                print_metrics(tested, f"{name} {bundle.version}, test part")
        console.print(f"bundles: {', '.join(str(bundle.path) for bundle in bundles.values())}", soft_wrap=True)
        if gone := len(site) - len(bundles):
            raise LogError(f"{gone} of {len(site)} sites did not come to the end; the log says why")


def _site(given: str) -> tuple[str, Any]:
    from training.distributed.federated_fit import Files

    name, _, files = given.partition("=")
    events, _, labels = files.partition(",")
    if not (name and events and labels) or "/" in name:
        raise ValueError(f"--site {given}: write NAME=events.csv,labels.csv")
    return name, Files(Path(events), Path(labels))
