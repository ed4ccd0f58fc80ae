"""The thresholds in force, and how an operator changes them."""

from math import inf
from typing import Annotated

from fastapi import APIRouter

from service.api.auth import Access, needs
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS
from service.model.lengths import LEAST
from service.model.policy import Policy
from service.schemas import operations
from service.schemas.problems import Problem
from service.serving.service import Serving


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    [admin] = needs(access, "admin")

    @routes.get(
        "/v1/thresholds",
        responses=KEY_PROBLEMS,
        summary="Thresholds in force",
        response_model_exclude_none=True,
        dependencies=needs(access, "score", "admin"),
    )
    async def thresholds() -> operations.ThresholdsAnswer:
        return _answer(serving)

    @routes.put(
        "/v1/thresholds",
        responses=ADMIN_PROBLEMS,
        summary="Override the bundle's thresholds",
        response_model_exclude_none=True,
    )
    async def put_thresholds(
        who: Annotated[str, admin], body: operations.ThresholdsBody
    ) -> operations.ThresholdsAnswer:
        """Takes effect at once, outlives a restart, and applies only to the bundle version being served."""
        await serving.registry.set_policy(_policy(body), who)
        return _answer(serving)

    @routes.post("/v1/thresholds/preview", responses=ADMIN_PROBLEMS, summary="Try thresholds on recent traffic")
    async def preview(who: Annotated[str, admin], body: operations.ThresholdsBody) -> operations.PreviewAnswer:
        """Says what share of the recent sequences these thresholds would review and block; changes nothing."""
        told = serving.publisher
        now, then = (operations.Shares(**told.shares(p)) for p in (serving.registry.policy[0], _policy(body)))
        return operations.PreviewAnswer(sequences=len(told.recent), now=now, then=then)

    return routes


def _answer(serving: Serving) -> operations.ThresholdsAnswer:
    policy, source = serving.registry.policy
    answer = operations.ThresholdsAnswer.model_validate({**policy.as_json(), "source": source})
    if policy.default.review is None or policy.default.block is None:
        alarms = serving.registry.current().model.bundle.false_alarms
        review, block = ([x if x < inf else None for x in limit[0].tolist()] for limit in alarms.limits(policy.default))
        told = zip(LEAST, review, block, alarms.accounts.tolist(), strict=True)
        answer.curves = [operations.Curve(events=n, review=r, block=b, accounts=a) for n, r, b, a in told]
    return answer


def _policy(body: operations.ThresholdsBody) -> Policy:
    try:
        return Policy.from_json(body.model_dump(exclude_none=True))
    except ValueError as error:
        raise Problem(422, str(error), [{"pointer": "/block", "detail": str(error)}]) from None
