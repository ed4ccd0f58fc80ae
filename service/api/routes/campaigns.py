"""The routes of campaigns: which accounts act together in the live crowd, and one verdict on all of them."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as InPath

from service.api.auth import Access, needs
from service.api.openapi import DEADLINE
from service.api.responses import ADMIN_PROBLEMS, leads_to, problems
from service.api.routes.scoring import due
from service.schemas import reviewing
from service.schemas.problems import Problem
from service.serving.service import Serving

SAID_PROBLEMS = ADMIN_PROBLEMS | problems(404, 504)
ON_ALL = {
    "operationId": "campaign_verdict_v1_campaigns__which__verdict_post",
    "parameters": {"which": "$response.body#/campaigns/0/id"},
    "requestBody": {"verdict": "anomalous"},
}


def router(serving: Serving, access: Access) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Campaigns"])
    [reviewer] = needs(access, "review")

    @routes.get(
        "/v1/campaigns",
        responses=ADMIN_PROBLEMS | leads_to(verdict=ON_ALL),
        dependencies=[reviewer],
        summary="Accounts that act together",
    )
    async def campaigns() -> reviewing.CampaignsAnswer:
        """Groups in the live crowd, with who they are, what they push, since when, and how unlikely by chance.

        They are looked for now and then. Of several workers, the one that answers tells what it has found.
        """
        found = serving.campaigns.shown() if serving.campaigns else []
        return reviewing.CampaignsAnswer.model_validate({"campaigns": found})

    @routes.post(
        "/v1/campaigns/{which}/verdict",
        responses=SAID_PROBLEMS,
        openapi_extra={"parameters": [DEADLINE]},
        summary="Say one verdict on all members of a campaign",
    )
    async def campaign_verdict(
        request: Request,
        who: Annotated[str, reviewer],
        which: Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$", description="The campaign's id.")],
        body: reviewing.VerdictBody,
    ) -> reviewing.CampaignVerdictAnswer:
        """The verdict is said on the latest answer of each member, as by `POST /v1/feedback`, where it is kept.

        Sending the same verdict again changes nothing.
        """
        until = due(request, serving)
        verdict = {"verdict": body.verdict, "type": body.type, "note": body.note, "who": body.who or who}
        if serving.campaigns is None:
            raise Problem(404, "no crowd is watched, so no campaign is found; see RECGUARD_CROWD")
        return reviewing.CampaignVerdictAnswer(**await serving.campaigns.say(which, verdict, who, until))

    return routes
