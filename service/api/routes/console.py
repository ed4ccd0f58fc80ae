"""The pages: an index, the console, which scores a sequence and shows why, and the API's documentation."""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from service.api.auth import Access, needs
from service.api.responses import KEY_PROBLEMS
from service.schemas import messages
from service.schemas.problems import Problem
from service.serving.service import Serving

PAGES = Path(__file__).parents[1] / "pages"
SWAGGER = files("fastapi_offline") / "static"  # that package's copy of Swagger UI, so that no browser asks a CDN
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
OF_CONSOLE = {file.name: file for file in (PAGES / "console").iterdir() if file.suffix in KINDS}
OF_DOCS = {"docs.js": PAGES / "docs.js"} | {n: SWAGGER / n for n in ("swagger-ui.css", "swagger-ui-bundle.js")}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_SAMPLES = 16


def router(serving: Serving, access: Access) -> APIRouter:
    """The pages, their parts, and samples. Pages are open to all, but the data that they load needs an API key."""
    routes = APIRouter(tags=["Console"])

    @routes.get("/", include_in_schema=False)
    async def index() -> Response:
        return _page(PAGES / "index.html")

    @routes.get("/console", include_in_schema=False)
    async def console() -> Response:
        return _page(PAGES / "console.html")

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page(PAGES / "docs.html", " 'unsafe-inline'")  # Swagger UI sets styles of its elements

    @routes.get("/console/{name}", include_in_schema=False)
    async def part_of_console(name: str) -> Response:
        return _part(OF_CONSOLE, name)

    @routes.get("/docs/{name}", include_in_schema=False)
    async def part_of_docs(name: str) -> Response:
        return _part(OF_DOCS, name)

    @routes.get(
        "/v1/samples",
        dependencies=needs(access, "score"),
        responses=KEY_PROBLEMS,
        response_model_exclude_none=True,
        summary="Sequences to try",
    )
    async def samples() -> messages.SamplesAnswer:
        """Sequences that can be scored: golden samples from the bundle being served."""
        golden = serving.registry.current().model.bundle.golden()[:MOST_SAMPLES]
        sequences = [
            messages.Sequence.model_validate({"id": f"sample-{i}", "events": s["events"]})
            for i, s in enumerate(golden, 1)
        ]
        return messages.SamplesAnswer(sequences=sequences)

    return routes


def _part(parts: Mapping[str, Traversable], name: str) -> Response:
    if name not in parts:
        raise Problem(404, "no such file")
    return _page(parts[name])


def _page(file: Traversable, styles: str = "") -> Response:
    policy = {"Content-Security-Policy": POLICY.format(styles=styles)}
    return Response(file.read_bytes(), media_type=KINDS[Path(file.name).suffix], headers=policy)
