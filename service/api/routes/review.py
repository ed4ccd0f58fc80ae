"""The routes of review: which answers wait for a verdict, and giving a verdict."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.auth import Access, needs
from service.api.openapi import DEADLINE
from service.api.responses import ADMIN_PROBLEMS, leads_to, problems, verdict_on
from service.api.routes.scoring import timeout_of
from service.schemas import operations
from service.schemas.digest import digest
from service.serving.service import Serving

REVIEW_PROBLEMS = ADMIN_PROBLEMS | problems(404, 500, 504)
WAITS = {"parameters": [DEADLINE]}
SAID = ("score_id", "score", "decision", "type", "contradicts", "exempt_until")


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Review"])
    [reviewer] = needs(access, "review")

    @routes.post(
        "/v1/feedback", responses=REVIEW_PROBLEMS, openapi_extra=WAITS, summary="Say whether an answer was right"
    )
    async def feedback(
        request: Request, who: Annotated[str, reviewer], body: operations.FeedbackBody
    ) -> operations.FeedbackAnswer:
        """Give the answer's `score_id`, or send the sequence itself, which is then scored.

        The verdict is durable before the request is answered. Sending the same verdict again changes nothing, unless
        another was said in between.

        `normal` on a flagged answer exempts its account: it is allowed until `RECGUARD_EXEMPT_DAYS` are over, its score
        rises clearly, another bundle serves, or somebody calls it anomalous.
        """
        milliseconds = timeout_of(request, serving.settings.timeout_ms)
        until = asyncio.get_running_loop().time() + milliseconds / 1000
        score_id, sent = body.score_id, None
        if body.sequence is not None:
            result, version = await serving.try_one(body.sequence, milliseconds)
            score_id = digest(body.sequence.model_dump(), version).hex()  # sent again, it is the same answer
            sent = body.sequence, {**result, "score_id": score_id}, version
        verdict = {"verdict": body.verdict, "type": body.type, "note": body.note, "who": body.who or who}
        kept, new = await serving.feedback.say(str(score_id), verdict, sent, who, until)
        return operations.FeedbackAnswer(**{n: kept[n] for n in SAID}, recorded=new)

    @routes.get(
        "/v1/review",
        responses=REVIEW_PROBLEMS | leads_to(verdict=verdict_on("answers")),
        openapi_extra=WAITS,
        summary="What waits for a verdict",
    )
    async def review(
        request: Request, _: Annotated[str, reviewer], most: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> operations.ReviewAnswer:
        """Kept answers without a verdict, the most useful ones to judge first; some come from the random sample."""
        until = asyncio.get_running_loop().time() + timeout_of(request, serving.settings.timeout_ms) / 1000
        return operations.ReviewAnswer.model_validate({"answers": await serving.feedback.queue(most, until)})

    return routes
