"""The last part of `make run`: serves a bundle, scores users that it has never seen, and keeps serving."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from service.model.bundle import Bundle
from training.config import FitConfig
from training.data.log import Log
from training.data.read import AS_FOUND, ReadOptions
from training.data.to_score import events_to_score

GENUINE = 5  # genuine users in the table, next to one attack user of each type
START_SECONDS = 60.0


def run(path: Path, events: Path, port: int, console: Console, how: ReadOptions = AS_FOUND) -> int:
    """Runs the demonstration; returns the server's exit code, or 0 if the user stops it with Ctrl-C.

    Raises:
        ValueError: the service did not start.
    """
    bundle = Bundle.open(path)
    held_back = _pick(json.loads((path / "evaluation.json").read_text()))
    log = events_to_score(events, bundle.encoder, how=how).log
    if FitConfig(**bundle.manifest["config"]).anonymous:
        log = log.numbered  # as the evaluation calls them
    url = f"http://127.0.0.1:{port}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM also stops the server
    command = [sys.executable, "-m", "service.cli", "run", "--bundle", str(path), "--port", str(port)]
    server = subprocess.Popen(command, env={"RECGUARD_LOG_FORMAT": "text", **os.environ})
    try:
        _wait_until_ready(server, url)
        body = {"sequences": [_sequence(log, bundle, sequence_id) for sequence_id in held_back]}
        console.print(_table(_post(f"{url}/v1/score", body), held_back))
        console.print(f"\nServing {bundle.name} {bundle.version} on {url} (API page: {url}/docs). Ctrl-C stops it.")
        return server.wait()
    except KeyboardInterrupt:
        return 0
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


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "X-Request-Timeout-Ms": "30000"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _table(answer: dict[str, Any], truth: dict[str, str]) -> Table:
    table = Table(title="Held-back users, scored over HTTP", title_justify="left", box=SIMPLE)
    for head in ("user", "truth", "events", "score", "decision", "type given", "worst"):
        table.add_column(head, justify="right" if head in ("events", "score", "worst") else "left", no_wrap=True)
    colours = {"allow": "green", "review": "yellow", "block": "red"}
    for result in answer["results"]:
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
