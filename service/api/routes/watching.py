"""Routes for people who watch the service: the last hour, what has moved since training, what operators changed."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.auth import Access, needs
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS
from service.schemas import operations
from service.schemas.problems import Problem
from service.serving.service import Serving


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get(
        "/v1/now",
        responses=KEY_PROBLEMS,
        summary="The last hour",
        dependencies=needs(access, "metrics", "admin"),
    )
    async def now() -> operations.NowAnswer:
        """Traffic, decisions, latency and the promise over an hour, and the alerts that would fire by them.

        Of several workers, each tells the same. Prometheus remains the judge: some alerts need days, or all replicas.
        """
        return operations.NowAnswer.model_validate(await serving.last_hour.told())

    @routes.get(
        "/v1/drift",
        responses=KEY_PROBLEMS,
        summary="What has moved since training",
        dependencies=needs(access, "metrics", "admin"),
    )
    async def drift() -> operations.DriftAnswer:
        """Each field with the shares of its values in training and in recent traffic; what moved most comes first."""
        sequences, fields = await serving.drift.moved()
        fields.sort(key=lambda field: -field["psi"])
        return operations.DriftAnswer.model_validate({"sequences": sequences, "fields": fields})

    @routes.get(
        "/v1/audit",
        responses=ADMIN_PROBLEMS,
        summary="What operators changed",
        dependencies=needs(access, "admin"),
        response_model_exclude_none=True,
    )
    async def audit(most: Annotated[int, Query(ge=1, le=500)] = 50) -> operations.AuditAnswer:
        """The latest lines of the audit in the state directory: thresholds, reloads, promotions, exemptions."""
        try:
            changes = await serving.registry.record.ask(serving.registry.record.audit.latest, most)
        except OSError as error:
            raise Problem(503, f"the audit cannot be read: {error.strerror or error}") from error
        return operations.AuditAnswer.model_validate({"changes": changes})

    return routes
