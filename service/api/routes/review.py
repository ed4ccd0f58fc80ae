"""The routes of review: which answers wait for a verdict, and giving a verdict."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.auth import Access, needs
from service.api.responses import ADMIN_PROBLEMS, problems
from service.schemas import operations
from service.schemas.digest import digest
from service.serving.service import Serving

REVIEW_PROBLEMS = ADMIN_PROBLEMS | problems(404, 500, 504)
SAID = ("score_id", "score", "decision", "type", "contradicts")


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Review"])
    [reviewer] = needs(access, "review")

    @routes.post("/v1/feedback", responses=REVIEW_PROBLEMS, summary="Say whether an answer was right")
    async def feedback(who: Annotated[str, reviewer], body: operations.FeedbackBody) -> operations.FeedbackAnswer:
        """Give the answer's `score_id`, or send the sequence itself, which is then scored.

        The verdict is durable before the request is answered. Sending the same verdict again changes nothing.
        """
        score_id, sent = body.score_id, None
        if body.sequence is not None:
            result, version = await serving.try_one(body.sequence)
            score_id = digest(body.sequence.model_dump(), version).hex()  # sent again, it is the same answer
            sent = body.sequence, {**result, "score_id": score_id}, version
        verdict = {"verdict": body.verdict, "type": body.type, "note": body.note, "who": body.who or who}
        kept, new = await serving.feedback.say(str(score_id), verdict, sent)
        return operations.FeedbackAnswer(**{n: kept[n] for n in SAID}, recorded=new)

    @routes.get("/v1/review", responses=REVIEW_PROBLEMS, summary="What waits for a verdict")
    async def review(
        _: Annotated[str, reviewer], most: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> operations.ReviewAnswer:
        """Kept answers without a verdict, the most useful ones to judge first; some come from the random sample."""
        return operations.ReviewAnswer.model_validate({"answers": await serving.feedback.queue(most)})

    return routes
