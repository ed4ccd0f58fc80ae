"""The last part of `make run`: serves a bundle, scores users that it has never seen, and keeps serving."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.model.bundle import Bundle
from training.cli.traffic import LOOK_SECONDS, Plan, ask, detail, plan, said, send
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.log import Log
from training.data.read import AS_FOUND, ReadOptions
from training.data.to_score import events_to_score

GENUINE = 5  # genuine users in the table, next to one attack user of each type
START_SECONDS = 60.0
# so that a campaign shows within the minute, under the names that its accounts have here, and few who are genuine do
TRAFFIC = {
    "RECGUARD_CAMPAIGN_SECONDS": str(LOOK_SECONDS),
    "RECGUARD_LOG_IDS": "true",
    "RECGUARD_LIVE_REVIEWS_KEPT": "true",
}


def run(
    path: Path, events: Path, port: int, console: Console, how: ReadOptions = AS_FOUND, seconds: float = 0.0
) -> int:
    """Runs the demonstration; returns the server's exit code, or 0 if the user stops it with Ctrl-C.

    Args:
        seconds: how long traffic goes through the service; 0 for none.

    Raises:
        ValueError: the service did not start, ended by itself during the traffic, or refuses what is asked.
        ConnectionError: it runs, but does not answer.
    """
    bundle, evaluation = Bundle.open(path), json.loads((path / "evaluation.json").read_text())
    url = f"http://127.0.0.1:{port}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM also stops the server
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(path), "--port", str(port)]
    server = subprocess.Popen(
        command, env={**(TRAFFIC if seconds else {}), "RECGUARD_LOG_FORMAT": "text", **os.environ}
    )
    try:
        # while it starts
        held_back = _pick(evaluation)
        log = _named(events_to_score(events, bundle.encoder, how=how).log, bundle)
        planned = _planned(events, bundle, evaluation, how, seconds) if seconds else None
        _wait_until_ready(server, url)
        waited = ask(url, "/v1/review/progress")["waiting"]
        # one by one, as a recommender asks: many in one request would be an alert for slow ones
        bodies = [{"sequences": [_sequence(log, bundle, sequence_id)]} for sequence_id in held_back]
        results = [ask(url, "/v1/score", body)["results"][0] for body in bodies]
        console.print(_table(results, held_back))
        links = {"console": f"{url}/console", "report": (path / "report.html").resolve().as_uri(), "API": f"{url}/docs"}
        for name, link in links.items():
            console.print(f"{name:8} {link}", soft_wrap=True)
        if planned:
            _traffic(url, planned, seconds, waited, console)
        console.print(f"\nServing {bundle.name} {bundle.version} on {url}. Ctrl-C stops it.", soft_wrap=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    except HTTPError as error:
        raise ValueError(f"the service refuses {error.url}: {error.code}, {detail(error)}") from error
    except ConnectionError as error:
        with suppress(subprocess.TimeoutExpired):  # it may still be about to end
            raise ValueError(f"the service stopped with code {server.wait(1)}; its message is above") from error
        raise
    finally:
        if server.poll() is None:
            server.terminate()
        server.wait()


def _wait_until_ready(server: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ValueError(f"the service stopped with code {server.returncode}; its message is above")
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise ValueError(f"{url} was not ready within {START_SECONDS:.0f} s")


def _pick(evaluation: dict[str, Any]) -> dict[str, str]:
    """Held-back sequences to show, with their true types: a few genuine users, and one attack user of each type."""
    shown: dict[str, str] = {}
    counts: dict[str, int] = {}
    for sequence_id, label, kind in zip(evaluation["sequences"], evaluation["label"], evaluation["type"], strict=True):
        truth = (kind or "anomalous") if label else "genuine"
        counts[truth] = counts.get(truth, 0) + 1
        if counts[truth] <= (GENUINE if truth == "genuine" else 1):
            shown[sequence_id] = truth
    return dict(sorted(shown.items(), key=lambda pair: (pair[1] != "genuine", pair[1])))


def _sequence(log: Log, bundle: Bundle, sequence_id: str) -> dict[str, Any]:
    columns, length = log.sequence(log.ids.index(sequence_id))
    used = [name for name in columns if name in bundle.encoder.columns]
    events = [{name: columns[name][t] for name in used if columns[name][t] is not None} for t in range(length)]
    return {"id": sequence_id, "events": events}


def _planned(events: Path, bundle: Bundle, evaluation: dict[str, Any], how: ReadOptions, seconds: float) -> Plan:
    """What happens in the traffic: genuine users of the test part go on; an attack has names of this run alone."""
    log, _ = clean_events(events, reading=bundle.encoder.reading, how=how)
    genuine = {one for one, label in zip(evaluation["sequences"], evaluation["label"], strict=True) if not label}
    return plan(_named(log, bundle), genuine, bundle.encoder.columns, seconds, f"push-{time.strftime('%H%M%S')}")


def _named(log: Log, bundle: Bundle) -> Log:
    """The log, whose sequences are called as the bundle's evaluation calls them."""
    return log.numbered if FitConfig(**bundle.manifest["config"]).anonymous else log


def _traffic(url: str, planned: Plan, seconds: float, waited: int, console: Console) -> None:
    """Puts traffic through the service, and says what it came to."""
    console.print(
        f"\nTraffic of {seconds:g} s: genuine users go on, and {len(planned.campaign)} accounts push one item.",
        soft_wrap=True,
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("traffic", total=len(planned.past) + len(planned.live))
        found = send(url, planned, lambda count: bar.update(task, advance=count))
    for line in said(url, planned, found, waited):
        console.print(line, soft_wrap=True, markup=False)


def _table(results: Sequence[dict[str, Any]], truth: dict[str, str]) -> Table:
    table = Table(title="Held-back users, scored over HTTP", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("user", "truth", "events", "score", "decision", "type given", "worst"):
        table.add_column(head, justify="right" if head in ("events", "score", "worst") else "left", no_wrap=True)
    colours = {"allow": "green", "review": "yellow", "block": "red"}
    for result in results:
        events = np.array([e["score"] for e in result["events"]])
        table.add_row(
            result["id"],
            truth[result["id"]],
            str(len(events)),
            f"{result['score']:.3f}",
            f"[{colours[result['decision']]}]{result['decision']}[/]",
            result["type"] or "",
            f"#{int(events.argmax()) + 1} {events.max():.2f}",
        )
    return table
