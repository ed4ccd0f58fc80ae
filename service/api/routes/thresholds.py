"""The thresholds in force, and how an operator changes them."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Annotated

from fastapi import APIRouter, Request

from service.api.auth import Access, needs
from service.api.openapi import WAITS
from service.api.responses import ADMIN_PROBLEMS, KEY_PROBLEMS, problems
from service.api.routes.scoring import due
from service.model.lengths import CLASSES, LEAST
from service.model.policy import Policy
from service.schemas import operations
from service.schemas.problems import Problem
from service.serving.recalibrating import recalibrate
from service.serving.registry import Active
from service.serving.service import Serving
from service.serving.trying import tried_thresholds


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
        responses=ADMIN_PROBLEMS | problems(409),
        response_model_exclude_none=True,
        summary="Override the bundle's thresholds",
    )
    async def put_thresholds(
        who: Annotated[str, admin], body: operations.ThresholdsChange
    ) -> operations.ThresholdsAnswer:
        """Takes effect at once, outlives a restart, and applies only to the bundle version being served."""
        why = {"note": body.note} if body.note else {}
        await serving.registry.set_policy(_change(body), who, **why)
        return _answer(serving)

    @routes.post(
        "/v1/thresholds/recalibrate",
        responses=ADMIN_PROBLEMS | problems(409, 504),
        openapi_extra=WAITS,
        summary="Move what rates mean by verdicts",
    )
    async def recalibrate_rates(
        request: Request, who: Annotated[str, admin], body: operations.RecalibrateBody
    ) -> operations.RecalibrateAnswer:
        """Moves the thresholds behind the rates in force, so that they hold for recent genuine accounts.

        It takes effect as `PUT /v1/thresholds` does, which keeps it. What too few verdicts can promise stays as it is.
        """
        asked = body.dry_run, body.undo, due(request, serving)
        found = await recalibrate(serving.registry, serving.feedback, who, *asked)
        return operations.RecalibrateAnswer.model_validate(found)

    @routes.post(
        "/v1/thresholds/preview",
        responses=ADMIN_PROBLEMS | problems(504),
        openapi_extra=WAITS,
        summary="Try thresholds on recent traffic",
    )
    async def preview(
        request: Request, who: Annotated[str, admin], body: operations.ThresholdsBody
    ) -> operations.PreviewAnswer:
        """Says what share of recent sequences they would flag, and how right they would be; changes nothing."""
        found = await tried_thresholds(serving, _policy(body), due(request, serving))
        return operations.PreviewAnswer.model_validate(found)

    return routes


def _change(body: operations.ThresholdsChange) -> Callable[[Active], Policy]:
    """Makes the new policy of what is in force; the change raises Problem 409 if that is not what was read before."""
    new, read = _policy(body), _policy(body.instead_of) if body.instead_of else None

    def change(now: Active) -> Policy:
        if read is not None and read != replace(now.policy, recalibration=None):
            raise Problem(409, "other thresholds were put in force meanwhile: read them, and decide again")
        return replace(new, recalibration=now.policy.recalibration)

    return change


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
        return Policy.from_json(body.model_dump(exclude_none=True, exclude={"note", "instead_of"}))
    except ValueError as error:
        raise Problem(422, str(error), [{"pointer": "/block", "detail": str(error)}]) from None
