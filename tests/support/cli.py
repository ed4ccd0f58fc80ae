"""The two command lines, as somebody calls them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import start

SERVE = [sys.executable, "-m", "service.cli"]
TRAIN = [sys.executable, "-m", "training.cli"]


def recguard_serve(*arguments: object, timeout: float = 60, **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs `recguard-serve` to its end, with more in its environment where asked for."""
    command = [*SERVE, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout)


def start_fit(attacked: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    """Starts `recguard-train fit` on the attacked log; it writes a new `log` beside the bundle."""
    log = out.with_name("log")
    log.unlink(missing_ok=True)
    data = ["--events", str(attacked / "events.csv"), "--labels", str(attacked / "labels.csv")]
    return start([*TRAIN, "fit", *data, "--out", str(out), "--epochs", "4", *more], log)
