"""The console: a page that scores a sequence and shows why. It consists of three files in `pages` and nothing else."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from service.api.auth import Access, needs
from service.api.responses import KEY_PROBLEMS
from service.schemas import messages
from service.schemas.problems import Problem
from service.serving.service import Serving

PAGES = Path(__file__).parents[1] / "pages"
FILES = {"console.html": "text/html", "console.css": "text/css", "console.js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_SAMPLES = 16


def router(serving: Serving, access: Access) -> APIRouter:
    """The page, its parts, and its samples. The page is open to all, but the data that it loads needs an API key."""
    routes = APIRouter(tags=["Console"])

    def page(name: str) -> Response:
        content = (PAGES / name).read_bytes()
        return Response(content, media_type=FILES[name], headers={"Content-Security-Policy": POLICY})

    @routes.get("/console", include_in_schema=False)
    async def console() -> Response:
        return page("console.html")

    @routes.get("/console/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in FILES:
            raise Problem(404, "no such file")
        return page(name)

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
