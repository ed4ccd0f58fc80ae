"""The thresholds in force, and how an operator changes them."""

import asyncio
from dataclasses import replace
from math import inf
from typing import Annotated

from fastapi import APIRouter, Request

from service.api.auth import Access, needs
from service.api.openapi import DEADLINE
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS, problems
from service.api.routes.scoring import timeout_of
from service.model.lengths import CLASSES, LEAST
from service.model.policy import Policy
from service.schemas import operations
from service.schemas.problems import Problem
from service.serving.recalibrating import recalibrate
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
        asked = _policy(body)
        await serving.registry.set_policy(lambda now: replace(asked, recalibration=now.policy.recalibration), who)
        return _answer(serving)

    @routes.post(
        "/v1/thresholds/recalibrate",
        responses=ADMIN_PROBLEMS | problems(409, 504),
        openapi_extra={"parameters": [DEADLINE]},
        summary="Move what rates mean by verdicts",
    )
    async def recalibrate_rates(
        request: Request, who: Annotated[str, admin], body: operations.RecalibrateBody
    ) -> operations.RecalibrateAnswer:
        """Moves the thresholds behind the rates in force, so that they hold for recent genuine accounts.

        It takes effect as `PUT /v1/thresholds` does, which keeps it. What too few verdicts can promise stays as it is.
        """
        until = asyncio.get_running_loop().time() + timeout_of(request, serving.settings.timeout_ms) / 1000
        found = await recalibrate(serving.registry, serving.feedback, who, body.dry_run, body.undo, until)
        return operations.RecalibrateAnswer.model_validate(found)

    @routes.post("/v1/thresholds/preview", responses=ADMIN_PROBLEMS, summary="Try thresholds on recent traffic")
    async def preview(who: Annotated[str, admin], body: operations.ThresholdsBody) -> operations.PreviewAnswer:
        """Says what share of the recent sequences these thresholds would review and block; changes nothing."""
        told = serving.publisher
        now, then = (operations.Shares(**told.shares(p)) for p in (serving.registry.policy[0], _policy(body)))
        return operations.PreviewAnswer(sequences=len(told.recent), now=now, then=then)

    return routes


def _answer(serving: Serving) -> operations.ThresholdsAnswer:
    policy, source = serving.registry.policy
    told = {**policy.as_json(), "source": source}
    if moved := policy.recalibration:
        told["recalibration"] = dict(zip(CLASSES.values(), moved.accounts, strict=True))
    answer = operations.ThresholdsAnswer.model_validate(told)
    if policy.default.review is None or policy.default.block is None:
        alarms = serving.registry.current().model.bundle.false_alarms
        limits = [alarms.limits(policy.of_bundle(None, n)) for n in LEAST]
        review, block = (
            [x if (x := float(of_bin[k][0, at])) < inf else None for at, of_bin in enumerate(limits)] for k in (0, 1)
        )
        bins = zip(LEAST, review, block, alarms.accounts.tolist(), strict=True)
        answer.curves = [operations.Curve(events=n, review=r, block=b, accounts=a) for n, r, b, a in bins]
    return answer


def _policy(body: operations.ThresholdsBody) -> Policy:
    try:
        return Policy.from_json(body.model_dump(exclude_none=True))
    except ValueError as error:
        raise Problem(422, str(error), [{"pointer": "/block", "detail": str(error)}]) from None
