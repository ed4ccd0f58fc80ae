"""The processes of `recguard-serve run`: one that serves, or several workers and who watches over them."""

import fcntl
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any

import uvicorn
from pydantic import SecretStr

from service.api.app import build, prove
from service.api.connection import Protocol
from service.api.supervisor import Supervisor, run_folder
from service.engine.server import hosted
from service.engine.session import cores
from service.serving.registry import ENGINE
from service.settings import Settings


class Server(uvicorn.Server):
    """Unlike uvicorn's class, it does not raise the signal again at the end: a drained service exits with code 0."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def claim(state: Path) -> None:
    """Holds the state directory until this process ends; raises ValueError if another service has it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        held = os.open(state, os.O_RDONLY)
    except OSError:
        return  # what needs it says so, and scoring does not
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{state}: another recguard has it; give each its own RECGUARD_STATE_DIR") from None


def prepared(settings: Settings) -> tuple[Server, socket]:
    """A server whose first model is loaded, and the socket that it is to run on.

    Raises:
        BundleError, ProviderError, ValueError, OSError: something that settings name cannot be used.
    """
    link = _bound(_config(settings, None))
    return Server(_config(settings, build(settings))), link


def _bound(config: uvicorn.Config) -> socket:
    """The socket to listen on; it takes no connection before the service is ready."""
    try:
        return config.bind_socket()
    except SystemExit:
        raise SystemExit(2) from None  # uvicorn has said why


def _config(settings: Settings, application: Any, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        http=Protocol,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
        **more,
    )


def supervise(settings: Settings) -> None:
    """Runs several workers until SIGTERM.

    Raises:
        BundleError, ValueError, OSError: something cannot be used, or no worker could start.
    """
    prove(settings)
    with run_folder(settings.workers) as run:
        settings.run_dir = run
        apart = cores() - settings.workers if settings.shared_engine else cores() // settings.workers
        settings.threads = settings.threads or max(apart, 1)
        for name, value in settings.model_dump(exclude_none=True).items():
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            os.environ[f"RECGUARD_{name.upper()}"] = str(plain)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run)
        config = _config(settings, "service.api.app:worker", factory=True, workers=settings.workers)
        engine = hosted(settings.run_dir / ENGINE, settings.log_format) if settings.shared_engine else nullcontext()
        with engine:
            supervisor = Supervisor(config, [_bound(config)], run)
            try:
                supervisor.run()
            finally:
                supervisor.end()
        if supervisor.failure:
            raise ValueError(supervisor.failure)
