"""Routes for operating the service: health, metrics, and forgetting a live window."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, Response

from service.api.auth import Access, needs
from service.api.openapi import DEADLINE
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS, problems
from service.api.routes.scoring import due
from service.schemas import messages
from service.schemas.terms import EVENTS
from service.serving.service import Serving


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/health/ready", responses=problems(503), summary="Will a request be served?")
    async def ready() -> dict[str, str]:
        serving.registry.current()
        return {"status": "ready"}

    @routes.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=KEY_PROBLEMS,
        summary="Prometheus metrics",
        dependencies=needs(access, "metrics"),
    )
    async def metrics() -> Response:
        await serving.drift.show()
        return Response(
            await asyncio.to_thread(serving.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @routes.delete(
        EVENTS,
        responses=ADMIN_PROBLEMS | problems(504),
        openapi_extra={"parameters": [DEADLINE]},
        summary="Forget the window of a user or session, what the crowd knows of it, and its exemption",
        dependencies=needs(access, "admin"),
    )
    async def forget(
        request: Request, key: Annotated[str, Query(min_length=1, max_length=256)]
    ) -> messages.ForgetAnswer:
        until = due(request, serving)
        return messages.ForgetAnswer(forgotten=await serving.forgetting.forget(key, until))

    return routes
