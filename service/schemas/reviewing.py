"""Requests and answers of the routes for reviewers: what waits for a verdict, verdicts, campaigns."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.schemas.messages import Sequence


class VerdictBody(BaseModel):
    """A verdict."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"verdict": "anomalous", "type": "click_farm"}]}
    )

    verdict: Literal["anomalous", "normal"]
    type: str | None = Field(None, max_length=128, description="The anomaly's true type.")
    note: str | None = Field(None, max_length=1000)
    who: str | None = Field(
        None, min_length=1, max_length=64, description="Who gives the verdict; by default the key's name."
    )


class FeedbackBody(VerdictBody):
    """A verdict on one answer, which is named by either `score_id` or `sequence`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"score_id": "91c2a954d506468eb6e765117b48ae7b", "verdict": "normal"}]},
    )

    score_id: str | None = Field(None, pattern=r"^[0-9a-f]{32}$", description="Id of the answer, if it is kept.")
    sequence: Sequence | None = Field(None, description="The sequence itself.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "FeedbackBody":
        if (self.score_id is None) == (self.sequence is None):
            raise PydanticCustomError("one_of", "Send either score_id or sequence")
        return self


class FeedbackAnswer(BaseModel):
    """The answer that the verdict is about."""

    score_id: str
    score: float
    decision: Literal["allow", "review", "block"]
    type: str | None
    recorded: bool = Field(description="False if the same verdict was given before.")
    contradicts: bool = Field(description="Whether another verdict on it says something else; the latest counts.")
    exempt_until: float | None = Field(
        description="Epoch seconds until which the account is exempt, while its scores stay near those that people "
        "called genuine; null if it is not."
    )


class UndoBody(BaseModel):
    """Whose verdict on which answer is taken back."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"score_id": "91c2a954d506468eb6e765117b48ae7b"}]}
    )

    score_id: str = Field(pattern=r"^[0-9a-f]{32}$", description="Id of the answer.")
    note: str | None = Field(None, max_length=1000, description="Why.")
    who: str | None = Field(
        None, min_length=1, max_length=64, description="Who gave the verdict; by default the key's name."
    )


class UndoAnswer(BaseModel):
    """What stands once a verdict is taken back."""

    score_id: str
    undone: bool = Field(description="False if that person had said nothing that stood.")
    verdict: Literal["anomalous", "normal"] | None = Field(
        description="The latest verdict that stands, of somebody else; null if the answer waits for one again."
    )
    exempt_until: float | None = Field(description="As in the answer to a verdict.")


class KeptAnswer(BaseModel):
    """An answer that is kept for review; ids are pseudonyms unless configured otherwise."""

    score_id: str
    time: float = Field(description="Epoch seconds.")
    sequence_id: str
    user_id: str | None
    segment: str | None = Field(description="Part of the traffic, where the sequence named one.")
    version: str = Field(description="Version of the bundle that answered.")
    score: float
    decision: Literal["allow", "review", "block"]
    type: str | None
    events: Any = Field(description="As they came.")
    retroactive: bool = Field(
        description="Whether it was let pass at first, and is flagged since a campaign was found."
    )


class ReviewAnswer(BaseModel):
    """What waits for a verdict, most useful first."""

    answers: list[KeptAnswer]


class ProgressAnswer(BaseModel):
    """How far people have come."""

    judged: int = Field(description="Answers whose verdict that counts was given since then.")
    waiting: int = Field(description="Answers that wait for a verdict; 5,000 stands for as many or more.")
    right: int = Field(description="Of the judged ones that were flagged, how many are called anomalous.")
    wrong: int = Field(description="How many of these are called normal.")
    precision: list[float] | None = Field(
        description="Share of the judged and flagged ones that is anomalous: estimate, low and high; null if none is."
    )


class SaidVerdict(BaseModel):
    """A verdict as it was given, or that one was taken back."""

    time: float = Field(description="Epoch seconds.")
    verdict: Literal["anomalous", "normal", "undone"] = Field(
        description="`undone` takes back what the same person said before."
    )
    type: str | None
    note: str | None
    who: str


class OtherAnswer(BaseModel):
    """Another answer to the same account."""

    score_id: str
    time: float = Field(description="Epoch seconds.")
    version: str
    score: float
    decision: Literal["allow", "review", "block"]
    type: str | None
    verdict: Literal["anomalous", "normal"] | None = Field(description="The latest that stands.")


class AnswerOfAccount(BaseModel):
    """A kept answer, what people said of it, and what else is kept of its account."""

    answer: KeptAnswer
    verdicts: list[SaidVerdict] = Field(description="In the order in which they were given; nothing is ever removed.")
    others: list[OtherAnswer] = Field(description="The latest first, at most 50.")


class PushedValue(BaseModel):
    """What the accounts of a campaign share."""

    column: str | None = Field(description="Its column; null if nobody who holds it was answered here.")
    value: str | None = Field(description="Itself, as one of them has it.")
    side: Literal["", "low", "high"] = Field(description="The side by which it is taken up, such as a high rating.")
    copies: bool = Field(description="Whether it is a whole history that they share, and no single value.")
    number: str = Field(description="The number that stands for it.")
    accounts: int = Field(description="Accounts that took it up from `start` to `end`.")
    usual: float = Field(description="How many usually would.")
    start: float = Field(description="Epoch seconds.")
    end: float = Field(description="Epoch seconds.")
    members: list[int] = Field(description="Places in the campaign's `members` of those who took it up.")


class Member(BaseModel):
    """An account of a campaign; ids are pseudonyms unless configured otherwise."""

    number: str = Field(description="The number that stands for the account.")
    certainty: float = Field(description="That it is no bystander.")
    time: float = Field(description="When it took up what is pushed, in epoch seconds.")
    sequence_id: str | None = Field(None, description="Of its latest answer; null if it is not kept here.")
    user_id: str | None = None
    score_id: str | None = None
    score: float | None = None
    decision: Literal["allow", "review", "block"] | None = None


class Campaign(BaseModel):
    """Accounts that act together."""

    id: str = Field(description="The same as long as most of its members are.")
    accounts: int
    since: float = Field(description="When it began, in epoch seconds.")
    found: float = Field(description="When it was found, in epoch seconds.")
    log10_expected: float = Field(description="Log10 of how many as unlikely as this one chance would make.")
    verdict: Literal["anomalous", "normal"] | None = Field(description="What was said of it here last.")
    pushed: list[PushedValue] = Field(description="What they share, the least likely to be chance first.")
    members: list[Member] = Field(description="The most certain first.")


class CampaignsAnswer(BaseModel):
    """Campaigns in the live crowd, the least likely to be chance first."""

    campaigns: list[Campaign]


class CampaignVerdictAnswer(BaseModel):
    """On how many answers the verdict was said."""

    accounts: int = Field(description="Members of the campaign.")
    answers: int = Field(description="Those whose latest answer is kept; the verdict is on these.")
    recorded: int = Field(description="Those on which it is new.")
