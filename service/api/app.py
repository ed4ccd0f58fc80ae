"""Builds the application: its routes, how it starts and stops, and how problems become answers."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import parent_process
from types import FrameType

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service.api.auth import Access
from service.api.front import CRASH, Front
from service.api.openapi import complete
from service.api.rates import Buckets
from service.api.routes import (
    campaigns,
    console,
    inference_protocol,
    model,
    operation,
    queue,
    review,
    scoring,
    thresholds,
    watching,
)
from service.api.routes.scoring import Scoring
from service.api.supervisor import REFUSED
from service.engine.remote import EngineLost
from service.engine.session import ProviderError
from service.model.bundle import Bundle, BundleError
from service.schemas import messages
from service.schemas.problems import Problem, of_validation
from service.serving.service import Parts, Serving
from service.serving.workers import WorkerError
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.sharing import take_place
from service.telemetry.traces import Traces


def build(settings: Settings) -> ASGIApp:
    """The application that settings describe, its first model loaded. What is quickly checked is checked first.

    Raises:
        BundleError, ProviderError: the first model cannot serve.
        ValueError, OSError: a setting cannot be used.
    """
    metrics = Metrics()
    access, traces = access_of(settings, metrics), Traces() if settings.traces else None
    return create_app(Serving(settings, metrics), access, traces)


def prove(settings: Settings) -> None:
    """Proves all that settings name, but for what only a loaded model can show; leaves nothing behind.

    Raises:
        BundleError, ValueError, OSError: something cannot be used.
    """
    metrics = Metrics()
    access_of(settings, metrics)
    if settings.traces:
        Traces().close()
    Bundle.open(settings.bundle, settings.bundle_public_key)  # without its challenger the champion serves on
    if (store := Parts(settings, metrics).store) is not None:
        store.close()


def access_of(settings: Settings, metrics: Metrics) -> Access:
    """The API keys that settings name; raises ValueError or OSError where they cannot be used."""
    s = settings
    buckets = Buckets(s.key_rate, s.run_dir) if s.key_rate else None
    hosts = frozenset(filter(None, map(str.strip, s.hosts.lower().split(","))))
    return Access(s.api_keys.get_secret_value(), s.api_keys_file, buckets, s.host, metrics, hosts)


def create_app(serving: Serving, access: Access, traces: Traces | None) -> ASGIApp:
    """The application around a service whose first model is loaded."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await serving.start()
        except (BundleError, ProviderError, EngineLost, WorkerError, ValueError, OSError) as error:
            if run := serving.settings.run_dir:
                (run / REFUSED).write_text(str(error))
            raise
        gc.collect()
        gc.freeze()  # loaded objects stay for good; looking through them took 10 % of the time under load
        gc.set_threshold(50_000, 20, 20)
        _unready_at(signal.SIGTERM, serving)
        _unready_at(signal.SIGINT, serving)
        yield
        await serving.close()
        if traces:
            await asyncio.to_thread(traces.close)

    app = FastAPI(
        title="recguard",
        summary="Scores behaviour sequences for anomalies before they poison a recommender.",
        lifespan=lifespan,
        openapi_url="/openapi.json",
        docs_url=None,  # `routes.console` serves that page, from files of our own
        redoc_url=None,
        redirect_slashes=False,  # a redirect sends body and key again, behind TLS in plain text
    )
    _answer_problems(app)
    scored = Scoring(serving, access)
    app.include_router(scoring.router(scored))
    for part in (operation, watching, model, thresholds, inference_protocol, review, queue, campaigns, console):
        app.include_router(part.router(serving, access))
    complete(app, messages.ScoreRequest, messages.EventsRequest, inference_protocol.InferRequest)
    return Front(app, scored, RequestLog(serving.settings.log_requests, serving.pseudonyms), traces)


def _answer_problems(app: FastAPI) -> None:
    """Makes every error that a route raises into a problem document."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        if request.url.path.startswith("/v2"):
            problem.extension = {"error": problem.detail}  # clients of the Open Inference Protocol read this field
        return problem.response

    @app.exception_handler(Exception)
    async def _crash(request: Request, _: Exception) -> Response:  # raised again afterwards, so `Front` logs it
        return await _problem(request, Problem(500, CRASH))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return await _problem(request, Problem(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        malformed = any(e["type"] == "json_invalid" for e in error.errors())
        errors = of_validation(error.errors(), skip=1)  # past "body"
        detail = "the request is not of the documented form"
        return await _problem(request, Problem(400 if malformed else 422, detail, errors))


def worker() -> ASGIApp:
    """The application of one worker process among several, configured only by the environment."""
    settings = Settings()  # type: ignore[call-arg]
    logs.configure(settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    assert settings.run_dir is not None
    try:
        take_place(settings.run_dir)
        return build(settings)
    except (BundleError, ProviderError, ValueError, OSError) as error:
        (settings.run_dir / REFUSED).write_text(str(error))  # the supervisor says it, once for all workers
        sys.exit(STARTUP_FAILURE)


def _end_with_parent() -> None:
    """Sends this worker SIGTERM once its supervising process is gone, since nobody would restart its engine then."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _unready_at(number: int, serving: Serving) -> None:
    """Reports unready on a signal, so that a load balancer sends new requests elsewhere while accepted ones finish."""
    stop = signal.getsignal(number)

    def drain(sig: int, frame: FrameType | None) -> None:
        serving.registry.draining = True
        if callable(stop):
            stop(sig, frame)

    signal.signal(number, drain)
