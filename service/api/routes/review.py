"""The routes of review: what waits for a verdict, and the verdicts."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import from_json, to_json

from service.api.auth import Access, needs
from service.schemas import schema
from service.schemas.digest import digest
from service.schemas.problems import Problem
from service.serving.service import Serving

SAID = ("score_id", "score", "decision", "type", "contradicts")


def router(serving: Serving, access: Access, problems: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The routes, with the problems they may answer."""
    routes = APIRouter(tags=["Review"])
    [reviewer] = needs(access, "review")

    @routes.post("/v1/feedback", responses=problems, summary="Say whether an answer was right")
    async def feedback(who: Annotated[str, reviewer], body: schema.FeedbackBody) -> schema.FeedbackAnswer:
        """Names an answer by its `score_id`, or sends the sequence, which is then scored for it.

        The verdict is durable before this answers. To say the same again changes nothing.
        """
        score_id, sent = body.score_id, None
        if body.sequence is not None:
            content = to_json({"sequences": [body.sequence], "trial": True})
            answer = from_json(await serving.score(content, serving.settings.timeout_ms))
            [result] = answer["results"]
            if "error" in result:
                raise Problem(result["error"]["status"], result["error"]["detail"])
            version = answer["model"]["version"]
            score_id = digest(body.sequence.model_dump(), version).hex()  # sent again, it is the same answer
            sent = body.sequence, {**result, "score_id": score_id}, version
        verdict = {"verdict": body.verdict, "type": body.type, "note": body.note, "who": body.who or who}
        kept, new = await serving.feedback.say(str(score_id), verdict, sent)
        return schema.FeedbackAnswer(**{n: kept[n] for n in SAID}, recorded=new)

    @routes.get("/v1/review", responses=problems, summary="What waits for a verdict")
    async def review(
        _: Annotated[str, reviewer], most: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> schema.ReviewAnswer:
        """Kept answers that nobody has judged, what a verdict teaches most on first; some are of the random sample."""
        return schema.ReviewAnswer.model_validate({"answers": await serving.feedback.queue(most)})

    return routes
