"""The routes of what waits for a verdict: the queue, how far people have come, and one answer with its account."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath

from service.api.auth import Access, needs
from service.api.openapi import WAITS
from service.api.responses import ADMIN_PROBLEMS, leads_to, problems, verdict_on
from service.api.routes.scoring import due
from service.schemas import reviewing
from service.schemas.terms import Decision, Order
from service.serving.service import Serving

REVIEW_PROBLEMS = ADMIN_PROBLEMS | problems(404, 504)
TEXT = r"^[^\x00]*$"  # PostgreSQL has no text with a NUL in it


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Review"])
    [reviewer] = needs(access, "review")

    @routes.get(
        "/v1/review",
        responses=REVIEW_PROBLEMS | leads_to(verdict=verdict_on("answers")),
        openapi_extra=WAITS,
        dependencies=[reviewer],
        summary="What waits for a verdict",
    )
    async def review(
        request: Request,
        most: Annotated[int, Query(ge=1, le=200)] = 20,
        order: Annotated[
            Order, Query(description="`teaching`: the most useful ones to judge first, some from the random sample.")
        ] = "teaching",
        decision: Annotated[Decision | None, Query(description="Only with this decision.")] = None,
        type: Annotated[str | None, Query(max_length=128, pattern=TEXT, description="Only of this type.")] = None,
        segment: Annotated[str | None, Query(max_length=64, pattern=TEXT, description="Only of this segment.")] = None,
    ) -> reviewing.ReviewAnswer:
        """Kept answers without a verdict, the most useful ones to judge first; some come from the random sample."""
        asked = ("decision", decision), ("type", type), ("segment", segment)
        only = {name: value for name, value in asked if value is not None}
        found = {"answers": await serving.feedback.queue(most, order, only, due(request, serving))}
        return reviewing.ReviewAnswer.model_validate(found)

    @routes.get(
        "/v1/review/progress",
        responses=REVIEW_PROBLEMS,
        openapi_extra=WAITS,
        dependencies=[reviewer],
        summary="How far people have come",
    )
    async def progress(
        request: Request,
        since: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Epoch seconds.")] = 0.0,
    ) -> reviewing.ProgressAnswer:
        """Verdicts since a time, what waits, and how often flagged answers were right, with Wilson's 95 % interval."""
        return reviewing.ProgressAnswer(**await serving.feedback.progress(since, due(request, serving)))

    @routes.get(
        "/v1/review/{score_id}",
        responses=REVIEW_PROBLEMS,
        openapi_extra=WAITS,
        dependencies=[reviewer],
        summary="One answer and its account",
    )
    async def of_account(
        request: Request,
        score_id: Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$", description="Id of the answer.")],
    ) -> reviewing.AnswerOfAccount:
        """A kept answer, all verdicts on it, also those taken back, and the other answers to its account."""
        return reviewing.AnswerOfAccount.model_validate(
            await serving.feedback.of_account(score_id, due(request, serving))
        )

    return routes
