"""Routes for operating the service: health, metrics, drift, and forgetting a live window."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, Response

from service.api.auth import Access, needs
from service.api.openapi import DEADLINE
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS, problems
from service.api.routes.scoring import timeout_of
from service.schemas import messages, operations
from service.serving.admission import EVENTS
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
        serving.drift.show()
        return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get(
        "/v1/drift",
        responses=KEY_PROBLEMS,
        summary="What has moved since training",
        dependencies=needs(access, "metrics", "admin"),
    )
    async def drift() -> operations.DriftAnswer:
        """Each field with the shares of its values in training and in recent traffic; what moved most comes first."""
        sequences, fields = serving.drift.moved()
        fields.sort(key=lambda field: -field["psi"])
        return operations.DriftAnswer.model_validate({"sequences": sequences, "fields": fields})

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
        until = asyncio.get_running_loop().time() + timeout_of(request, serving.settings.timeout_ms) / 1000
        return messages.ForgetAnswer(forgotten=await serving.forget(key, until))

    return routes
