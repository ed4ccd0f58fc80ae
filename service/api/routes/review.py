"""The routes of verdicts: giving one, and taking it back."""

from typing import Annotated

from fastapi import APIRouter, Request

from service.api.auth import Access, needs
from service.api.openapi import WAITS
from service.api.responses import ADMIN_PROBLEMS, problems
from service.api.routes.scoring import due, timeout_of
from service.schemas import reviewing
from service.schemas.digest import digest
from service.serving.service import Serving

REVIEW_PROBLEMS = ADMIN_PROBLEMS | problems(404, 500, 504)
SAID = ("score_id", "score", "decision", "type", "contradicts", "exempt_until")


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Review"])
    [reviewer] = needs(access, "review")

    @routes.post(
        "/v1/feedback", responses=REVIEW_PROBLEMS, openapi_extra=WAITS, summary="Say whether an answer was right"
    )
    async def feedback(
        request: Request, who: Annotated[str, reviewer], body: reviewing.FeedbackBody
    ) -> reviewing.FeedbackAnswer:
        """Give the answer's `score_id`, or send the sequence itself, which is then scored.

        The verdict is durable before the request is answered. Sending the same verdict again changes nothing, unless
        another was said in between.

        `normal` on a flagged answer exempts its account: it is allowed until `RECGUARD_EXEMPT_DAYS` are over, its score
        rises clearly, another bundle serves, or somebody calls it anomalous.
        """
        milliseconds, until = timeout_of(request, serving.settings.timeout_ms), due(request, serving)
        score_id, sent = body.score_id, None
        if body.sequence is not None:
            result, version = await serving.try_one(body.sequence, milliseconds)
            score_id = digest(body.sequence.model_dump(), version).hex()  # sent again, it is the same answer
            sent = body.sequence, {**result, "score_id": score_id}, version
        verdict = {"verdict": body.verdict, "type": body.type, "note": body.note, "who": body.who or who}
        kept, new = await serving.feedback.say(str(score_id), verdict, sent, who, until)
        return reviewing.FeedbackAnswer(**{n: kept[n] for n in SAID}, recorded=new)

    @routes.post("/v1/feedback/undo", responses=REVIEW_PROBLEMS, openapi_extra=WAITS, summary="Take a verdict back")
    async def undo(request: Request, who: Annotated[str, reviewer], body: reviewing.UndoBody) -> reviewing.UndoAnswer:
        """What one person said of an answer counts no more, as if it had not been said. The record of it stays.

        What it exempted goes. What other verdicts exempted holds on; what `anomalous` ended does not come back.
        """
        found, undone = await serving.feedback.undo(
            body.score_id, body.who or who, body.note, who, due(request, serving)
        )
        told = {name: found[name] for name in ("score_id", "verdict", "exempt_until")}
        return reviewing.UndoAnswer(**told, undone=undone)

    return routes
