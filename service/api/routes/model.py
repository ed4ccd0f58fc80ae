"""Routes that describe the model being served, and replace it by another."""

from typing import Annotated

from fastapi import APIRouter

from service.api.auth import Access, needs
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS, problems
from service.schemas import operations
from service.serving.proof import described
from service.serving.service import Serving


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    [admin] = needs(access, "admin")

    @routes.get(
        "/v1/model",
        responses=KEY_PROBLEMS,
        summary="The model being served",
        dependencies=needs(access, "score", "admin"),
    )
    async def model() -> operations.ModelAnswer:
        return _describe(serving)

    @routes.post("/v1/model/reload", responses=ADMIN_PROBLEMS, summary="Swap the model without losing a request")
    async def reload(who: Annotated[str, admin], body: operations.ReloadBody) -> operations.ModelAnswer:
        """Loads and verifies a bundle, then swaps to it. A bundle that fails is refused, and the old one goes on."""
        await serving.registry.reload(body.bundle, who)
        return _describe(serving)

    @routes.put("/v1/model/challenger", responses=ADMIN_PROBLEMS, summary="Have another model score in shadow")
    async def challenger(who: Annotated[str, admin], body: operations.ChallengerBody) -> operations.ModelAnswer:
        """Scores the same traffic with a second bundle, on idle cores, and counts where the two differ."""
        await serving.registry.set_challenger(body.bundle, who)
        return _describe(serving)

    @routes.post("/v1/model/promote", responses=ADMIN_PROBLEMS | problems(409), summary="Swap champion and challenger")
    async def promote(who: Annotated[str, admin]) -> operations.ModelAnswer:
        """Loses no request and outlives a restart. A second call swaps them back."""
        await serving.registry.promote(who)
        return _describe(serving)

    return routes


def _describe(serving: Serving) -> operations.ModelAnswer:
    second = serving.registry.challenger
    return described(serving.registry.current().model, serving.settings.provider, second.bundle if second else None)
