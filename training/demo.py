"""The end of `make run`: serves a bundle, shows what it says of users it has never seen, and goes on serving."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from service.bundle import Bundle
from training.log import Log, clean_events

EACH = 5  # genuine users, and attack users of types that differ, in the table
START_SECONDS = 60.0


def run(path: Path, events: Path, port: int, console: Console) -> int:
    """Runs the demonstration; returns the server's exit code once it is stopped."""
    bundle = Bundle.open(path)
    evaluation = json.loads((path / "evaluation.json").read_text())
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "service.cli", "run", "--bundle", str(path), "--port", str(port)])
    try:
        _wait_until_ready(server, url)
        log, _ = clean_events(events)
        chosen = _pick(evaluation)
        answer = _post(f"{url}/v1/score", {"sequences": [_sequence(log, bundle, i) for i in chosen]})
        console.print(_table(answer, evaluation, chosen))
        console.print(
            f"\nServing {bundle.name} {bundle.version} on {url} (API page: {url}/docs). Ctrl-C stops it.",
            soft_wrap=True,
        )
        return server.wait()
    except KeyboardInterrupt:
        server.send_signal(signal.SIGTERM)
        return server.wait()
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
        except (urllib.error.URLError, OSError):
            server_is_up = server.poll() is None
            if server_is_up:
                time.sleep(0.1)
    raise ValueError(f"{url} was not ready within {START_SECONDS:.0f} s")


def _pick(evaluation: dict[str, Any]) -> list[int]:
    """Positions, among the held-back sequences, of a few genuine users and of one attack user a type."""
    genuine = [i for i, y in enumerate(evaluation["label"]) if y == 0][:EACH]
    first_of: dict[str, int] = {}
    for i, kind in enumerate(evaluation["type"]):
        if kind:
            first_of.setdefault(kind, i)
    return genuine + [first_of[kind] for kind in sorted(first_of)]


def _sequence(log: Log, bundle: Bundle, held_back: int) -> dict[str, Any]:
    evaluation_id = json.loads((bundle.path / "evaluation.json").read_text())["sequences"][held_back]
    columns, length = log.sequence(log.ids.index(evaluation_id))
    used = [name for name in columns if name in bundle.encoder.columns]
    events = [{name: columns[name][t] for name in used if columns[name][t] is not None} for t in range(length)]
    return {"id": evaluation_id, "events": events}


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "X-Request-Timeout-Ms": "30000"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _table(answer: dict[str, Any], evaluation: dict[str, Any], chosen: list[int]) -> Table:
    table = Table(title="Held-back users, scored over HTTP", title_justify="left")
    for head in ("user", "truth", "events", "score", "decision", "type given", "worst event"):
        table.add_column(head, justify="right" if head in ("events", "score", "worst event") else "left")
    colours = {"allow": "green", "review": "yellow", "block": "red"}
    for i, result in zip(chosen, answer["results"], strict=True):
        events = np.array([e["score"] for e in result["events"]])
        table.add_row(
            result["id"],
            evaluation["type"][i] or "genuine",
            str(len(events)),
            f"{result['score']:.3f}",
            f"[{colours[result['decision']]}]{result['decision']}[/]",
            result["type"] or "",
            f"{events.max():.2f} at {int(events.argmax())}",
        )
    return table
