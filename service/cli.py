"""The command `recguard-serve`.

Each command imports what it needs by itself: `run` needs what takes two seconds, and most others need little of it.
"""

import json
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import typer

if TYPE_CHECKING:
    from service.stores.verdicts import Store

app = typer.Typer(help="Serves recguard bundles over HTTP.", no_args_is_help=True, pretty_exceptions_enable=False)
LIVE_SECONDS, PROMOTE_SECONDS = 5.0, 180.0  # how long `promote` waits for a sign of life, and for the model
MOST_KEPT = 1 << 40  # means no limit
Said = TypeVar("Said")
BundleDir = Annotated[Path | None, typer.Option("--bundle", help="Bundle directory; else RECGUARD_BUNDLE.")]


def _fail(error: Exception) -> typer.Exit:
    typer.secho(f"error: {error}", fg="red", err=True)
    return typer.Exit(2)


@app.command()
def run(
    bundle: BundleDir = None,
    host: Annotated[str | None, typer.Option(help="Address; else RECGUARD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; else RECGUARD_PORT.")] = None,
) -> None:
    """Serves a bundle until SIGTERM; everything else is configured by RECGUARD_ variables."""
    from service.api.running import claim, prepared, supervise
    from service.engine.session import ProviderError
    from service.model.bundle import BundleError
    from service.settings import Settings
    from service.telemetry import logs

    given: dict[str, Any] = {k: v for k, v in {"bundle": bundle, "host": host, "port": port}.items() if v is not None}
    try:
        settings = Settings(**given)
        logs.configure(settings.log_format)
        claim(settings.state_dir)
        if settings.workers > 1 or settings.shared_engine:
            supervise(settings)
            return
        server, link = prepared(settings)
    except (BundleError, ProviderError, ValueError, OSError) as error:
        raise _fail(error) from error
    server.run([link])
    if not server.started:
        raise typer.Exit(1)


Url = Annotated[str, typer.Option(help="The running service.")]
AdminKey = Annotated[str, typer.Option(envvar="RECGUARD_KEY", help="An API key with the scope admin.")]
StateDir = Annotated[Path, typer.Option("--state-dir", envvar="RECGUARD_STATE_DIR", help="The service's.")]
StoreUrl = Annotated[str, typer.Option("--store-url", envvar="RECGUARD_STORE_URL", help="The service's.")]


def _store(url: str, state: Path) -> "Store":
    """The store of a service, which must be there already."""
    from service.stores.verdicts import NAME, Store

    if not url and not (state / NAME).exists():
        raise _fail(ValueError(f"{state}: it holds no {NAME}; name the service's state directory with --state-dir"))
    try:
        return Store(url, state)
    except (ValueError, OSError) as error:
        raise _fail(error) from error


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="A user_id, as it was sent to the service, or a key of live events.")],
    state_dir: StateDir = Path("state"),
    store_url: StoreUrl = "",
    id_key: Annotated[str, typer.Option("--id-key", envvar="RECGUARD_ID_KEY", help="The service's.")] = "",
    url: Annotated[list[str] | None, typer.Option(help="The running service; once for each replica.")] = None,
    key: AdminKey = "",
) -> None:
    """Deletes all that is kept of one user: answers, verdicts, exemptions, and what running services know.

    If the service has a RECGUARD_ID_KEY, ids are kept hashed with it: without that key, 0 answers are deleted,
    and the exemption stays. A model that was fitted on the user stays as it is: see `recguard-train fit --without`.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from service.serving.webhook import forget_aside
    from service.telemetry.logs import Pseudonyms

    store = _store(store_url, state_dir)
    for one in url or ():  # first, as answers that wait there are written now
        known = _asked(one, key, f"/v1/events?key={quote(user, safe='')}", None, itemgetter("forgotten"))
        typer.echo(f"{one}: {'forgotten' if known else 'not known'}", err=True)
    kept_as = {user, Pseudonyms(state_dir, clear=False, key=id_key).of(user)}
    try:
        forget_aside(state_dir, user)
        typer.echo(f"{sum(map(store.forget, kept_as))} answers deleted")
    except (OSError, SQLAlchemyError) as error:
        raise _fail(error) from error
    if not url:
        typer.echo("a running service keeps windows and crowd in memory: name it with --url", err=True)


@app.command()
def prune(
    days: Annotated[float, typer.Option(min=0, help="Answers older than this are deleted.")],
    state_dir: StateDir = Path("state"),
    store_url: StoreUrl = "",
) -> None:
    """Deletes answers kept for review that are too old, with the verdicts on them; the service does this by itself."""
    typer.echo(f"{_store(store_url, state_dir).prune(days, MOST_KEPT)} answers deleted")


@app.command()
def upgrade_store(state_dir: StateDir = Path("state"), store_url: StoreUrl = "") -> None:
    """Upgrades the review store to this release's schema, ahead of a rollout; `run` does the same by itself."""
    before, now = _store(store_url, state_dir).schema
    typer.echo(f"verdict store: schema {before} -> {now}" if before != now else f"verdict store: schema {now} already")


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="Directory for events.jsonl and labels.csv.")],
    state_dir: StateDir = Path("state"),
    store_url: StoreUrl = "",
) -> None:
    """Writes all sequences with a verdict in the form that `recguard-train refit` and `fit` read; the latest counts."""
    from service.stores import judged

    store = _store(store_url, state_dir)
    count, conflicts = judged.write(store.judged(), out)
    typer.echo(f"{count} judged sequences written, {conflicts} with contradicting verdicts; see {out}")


@app.command()
def promote(url: Url = "http://127.0.0.1:8080", key: AdminKey = "") -> None:
    """Swaps champion and challenger of a running service; a second call swaps them back."""
    typer.echo(_asked(url, key, "/v1/model/promote", {}, _promoted))


def _promoted(now: dict[str, Any]) -> str:
    second = now["challenger"]
    return f"{now['name']} {now['version']} is champion now; {second['name']} {second['version']} runs in shadow"


@app.command()
def recalibrate(
    url: Url = "http://127.0.0.1:8080",
    key: AdminKey = "",
    dry_run: Annotated[bool, typer.Option(help="Only say what would change.")] = False,
    undo: Annotated[bool, typer.Option(help="Let rates mean again what the bundle says.")] = False,
) -> None:
    """Moves the thresholds behind the rates in force, so that they hold for accounts that people call genuine."""
    told = partial(_recalibrated, dry_run=dry_run)
    typer.echo(_asked(url, key, "/v1/thresholds/recalibrate", {"dry_run": dry_run, "undo": undo}, told))


def _recalibrated(found: dict[str, Any], dry_run: bool) -> str:
    """What became of each rate, a line each."""
    row = "{:<12} {:<12} {:<7} {:>8} {:>8} {:>8}  {}".format
    lines = [row("rate", "segment", "events", "asked", "before", "after", "verdicts")]
    for rate in found["rates"]:
        says = f"{rate['genuine']} genuine"
        if rate["lacking"]:
            says += f", {rate['lacking']} more are needed to promise it by these alone"
        if rate["delivered"]:
            says += "; flagged {:.2%} ({:.2%} to {:.2%})".format(*rate["delivered"])
        values = (f"{rate[name]:g}" for name in ("asked", "before", "after"))
        lines.append(row(rate["level"], rate["segment"], rate["events"], *values, says))
    done = (
        "in force now" if found["changed"] else "a dry run, nothing was changed" if dry_run else "nothing was changed"
    )
    return "\n".join([*lines, f"{found['version']}: {done}"])


def _asked(url: str, key: str, path: str, body: dict[str, Any] | None, says: Callable[[dict[str, Any]], Said]) -> Said:
    """What is to be said of a running service's answer to a POST, or a DELETE if there is no body."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    content, method = (None, "DELETE") if body is None else (json.dumps(body).encode(), "POST")
    request = Request(f"{url.rstrip('/')}{path}", content, headers, method=method)
    try:
        with urlopen(f"{url.rstrip('/')}/health/live", timeout=LIVE_SECONDS):
            pass  # it answers, so what takes longer below is the model
        with urlopen(request, timeout=PROMOTE_SECONDS) as answer:
            return says(json.load(answer))
    except HTTPError as error:
        raise _fail(RuntimeError(f"{error.code}: {_detail(error)}")) from error
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise _fail(RuntimeError(f"{url}: no recguard answers there: {error}")) from error


def _detail(error: HTTPError) -> str:
    """What a refusal says, where it is one of recguard's."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"{error.reason}; this is no answer of recguard"


@app.command()
def consume(
    brokers: Annotated[str, typer.Option(help="Kafka brokers, host:port, separated by commas.")],
    events: Annotated[str, typer.Option(help="Topic of events, each a JSON object in the form of /v1/events.")],
    decisions: Annotated[str, typer.Option(help="Topic for the answers to events whose window was scored.")],
    group: Annotated[str, typer.Option(help="Consumer group; its members share the partitions.")] = "recguard",
    url: Annotated[str, typer.Option(help="The running service.")] = "http://127.0.0.1:8080",
    key: Annotated[str, typer.Option(envvar="RECGUARD_KEY", help="An API key with the scope score.")] = "",
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Most events in one request.")] = 256,
    options: Annotated[
        Path | None, typer.Option(help="JSON file with further options of librdkafka, for example for TLS.")
    ] = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for Prometheus; 0: none.")] = 9109,
) -> None:
    """Reads events from a Kafka topic, has a running service score them, and writes its decisions to another topic."""
    from prometheus_client import start_http_server

    from service.telemetry import logs
    from service.tools.kafka import ConsumeError, Consumer
    from service.tools.remote import Remote, RemoteError

    logs.configure("json")
    try:
        more = json.loads(options.read_text()) if options else {}
        consumer = Consumer(brokers, events, decisions, group, Remote(url, key), batch, more)
        if metrics_port:
            start_http_server(metrics_port, registry=consumer.registry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: consumer.stop())
        consumer.run()
    except (ConsumeError, RemoteError, ValueError, OSError) as error:
        raise _fail(error) from error


@app.command()
def warm(
    events: Annotated[Path, typer.Option("--events", help="Log, one event per row: .csv or .jsonl, also .gz.")],
    columns: Annotated[str, typer.Option(help="Renames columns of the log: ours=theirs,...")] = "",
    url: Url = "http://127.0.0.1:8080",
    key: AdminKey = "",
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Most events in one request.")] = 64,
) -> None:
    """Fills a running service's live windows and its crowd from a log, so that it does not start as a stranger.

    Nothing is scored. Calling it again does no harm. The exit code is 2 if no event was taken in, and 1 if more than
    5 % of the rows were refused.
    """
    from service.schemas.terms import WARM
    from service.tools.remote import Remote, RemoteError
    from service.tools.warm import Warming, columns_named

    try:
        warming = Warming(events, columns_named(columns), Remote(url, key, WARM), partial(typer.echo, err=True))
        done = warming.run(batch, partial(typer.progressbar, label="warming", file=sys.stderr))
    except (RemoteError, ValueError, OSError) as error:
        raise _fail(error) from error
    typer.echo(done.said())
    raise typer.Exit(done.exit_code)


@app.command()
def check(bundle: Annotated[Path, typer.Option("--bundle", help="Bundle directory.")]) -> None:
    """Verifies a bundle as the service would before serving it: schema, checksums, golden scores."""
    from service.engine.session import ProviderError, Runtime
    from service.model.bundle import Bundle, BundleError
    from service.model.scorer import Model

    try:
        model = Model.load(Bundle.open(bundle), Runtime("auto"))
    except (BundleError, ProviderError) as error:
        raise _fail(error) from error
    b = model.bundle
    typer.echo(
        f"{b.name} {b.version}: good; {model.engine.precision} on {model.engine.provider}, "
        f"{len(b.golden())} golden samples"
    )


@app.command()
def bench(
    bundle: Annotated[Path, typer.Option("--bundle", help="Bundle directory; its graph is the limit.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for the rows.")] = None,
    kinds: Annotated[
        str, typer.Option("--mixes", help="Kinds of traffic, separated by commas.")
    ] = "single,movielens,bulk,mixed",
    connections: Annotated[
        str, typer.Option(help="Numbers of connections in the closed loop.")
    ] = "1,2,4,8,16,32,64,128",
    loads: Annotated[str, typer.Option(help="Loads in the open loop, in % of the limit.")] = "20,50,70,90,120,300",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = 5.0,
    reloads: Annotated[int, typer.Option(min=0, help="Model reloads, one every 1.2 s at 70 % of the best rate.")] = 0,
    soak: Annotated[int, typer.Option(min=0, help="Requests in a row; shows memory after 5 % and after all.")] = 0,
    cores: Annotated[str, typer.Option(help="Cores of the server and, after a slash, of the load.")] = "0/1",
    url: Annotated[str | None, typer.Option(help="Scoring route of another server to measure instead.")] = None,
    template: Annotated[
        Path | None, typer.Option(help="File with the body of its requests; {{sequences}} stands for them.")
    ] = None,
) -> None:
    """Measures the service, or another one, against the bundle's graph alone in ONNX Runtime on the same cores."""
    from service.engine.session import ProviderError
    from service.model.bundle import BundleError
    from service.tools.bench import Bench, mixes

    names = kinds.split(",")
    try:
        if unknown := set(names) - mixes(random.Random(0)).keys():
            raise ValueError(f"--mixes {', '.join(sorted(unknown))}: there are {', '.join(mixes(random.Random(0)))}")
        of_server, of_load = ([int(core) for core in part.split(",")] for part in cores.split("/"))
        if url and (reloads or soak):
            raise ValueError("--reloads and --soak are of the service itself, not of another server's --url")
        run = Bench(bundle, seconds, of_server, of_load, url, template.read_text() if template else None, typer.echo)
        counts = [int(n) for n in connections.split(",") if n]
        result = run.run(names, counts, [float(share) / 100 for share in loads.split(",") if share], reloads, soak)
    except (BundleError, ProviderError, ValueError, OSError) as error:
        raise _fail(error) from error
    if out:
        out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    app()
