"""The routes of review: what waits for a verdict, and the verdicts."""

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
        """Names an answer by its `score_id`, or sends the sequence, which is then scored for it.

        The verdict is durable before this answers. To say the same again changes nothing.
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
        """Kept answers that nobody has judged, what a verdict teaches most on first; some are of the random sample."""
        return operations.ReviewAnswer.model_validate({"answers": await serving.feedback.queue(most)})

    return routes
