"""Looks for campaigns in the live crowd, apart from the path of requests, and takes one verdict for all their members.

One task looks now and then. It takes a shot of the state in short turns, a tenth of the time, between which requests go
on, and a thread makes campaigns of it. Members that were let pass are judged again once.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from service.encoding.encoder import Encoder
from service.model.campaigns import COPIES, SAME, Box, Group, find
from service.model.scorer import Model
from service.model.shot import Shot
from service.schemas import messages
from service.schemas.problems import Problem
from service.serving.crowd import LiveCrowd
from service.serving.feedback import Feedback
from service.serving.patience import Apart, end
from service.serving.publisher import Publisher
from service.serving.recent import Recent
from service.serving.steps import Prepared, Result
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
TURN_SECONDS, REST_SECONDS = 0.002, 0.02  # for how long looking takes a core from requests, and then lets them go on
MOST_AGAIN = 200  # accounts that are judged again after one look
AT_ONCE = 2  # accounts that are judged again together
MOST_MEMBERS = 1000  # of a campaign that are kept
MOST_VALUES = 20  # of a campaign that are shown
SIDES = ("", "low", "high")
Again = Callable[
    [Sequence[messages.Sequence], bool, Sequence[bytes]], Awaitable[tuple[list[dict[str, Any]], dict[str, str]]]
]


@dataclass
class Campaign:
    """A campaign, from one look to the next.

    Attributes:
        id: the same as long as most of its members are.
        group: as it was found last.
        members: certainty by account, of all who were found to be of it and are still known.
        found: when it was found first, in epoch seconds.
        verdict: what a person said of it last.
        times: when each member took up what is pushed, in epoch seconds.
        names: the column and the value that a number stands for, as far as they are known.
    """

    id: str
    group: Group
    members: dict[int, float]
    found: float
    verdict: str | None = None
    times: dict[int, float] = field(default_factory=dict)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)


class Campaigns:
    """The campaigns of a crowd.

    Args:
        crowd: the crowd that is looked at.
        most: bytes of the latest answers that are kept.
        seconds: from one look to the next.
        feedback, publisher, metrics: where verdicts go, what is found out late, and how many there are.
        model: gives the model in force; None while there is none.
        again: judges sequences of one kind, live windows or not, each with the summary of its past if it has one,
            beside the crowd as it is, and publishes nothing.
    """

    def __init__(
        self,
        crowd: LiveCrowd,
        most: int,
        seconds: float,
        feedback: Feedback,
        publisher: Publisher,
        metrics: Metrics,
        model: Callable[[], Model | None],
        again: Again,
    ) -> None:
        self.crowd, self.seconds, self.recent = crowd, seconds, Recent(most)
        self.feedback, self.publisher, self.metrics = feedback, publisher, metrics
        self.model, self.again = model, again
        self.apart = Apart(1)
        self.campaigns: list[Campaign] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._over_and_over(), name="campaigns")

    async def close(self) -> None:
        await end(self.task)

    async def _over_and_over(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            try:
                await self.look()
            except Exception:  # the task may not end, or campaigns would silently be found no more
                self.metrics.campaign_errors.inc()
                logger.exception("campaigns could not be looked for")

    async def look(self) -> None:
        """Looks for campaigns, if anything entered the crowd since it last did."""
        model = self.model()
        if not self.crowd.changed or self.crowd.young or model is None or (usual := model.bundle.usual) is None:
            return
        self.crowd.changed = False
        start = time.perf_counter()
        shot = Shot(self.crowd.state)
        while shot.more(TURN_SECONDS):
            await asyncio.sleep(REST_SECONDS)
        self._keep(await self.apart(find, shot, usual))
        self.metrics.campaign_seconds.observe(time.perf_counter() - start)
        await self._judge_again()

    def _keep(self, groups: Sequence[Group]) -> None:
        """Puts what was found into the place of what was found before; what is known again keeps its id."""
        before, after = list(self.campaigns), list[Campaign]()
        for group in groups:
            same = max(before, key=lambda c: len(c.members.keys() & group.members.keys()), default=None)
            if same is None or len(same.members.keys() & group.members.keys()) < SAME * min(
                len(same.members), len(group.members)
            ):
                taken = {campaign.id for campaign in (*before, *after)}
                same = Campaign(_id_of(group, taken), group, {}, time.time())
                logger.warning("a campaign of %d accounts: %s", len(group.members), same.id)
            else:
                before.remove(same)
            # the holders of a value may be forgotten by now
            known = {a: c for a, c in (same.members | group.members).items() if a in self.crowd.state.accounts}
            members = sorted(known.items(), key=lambda one: -one[1])
            same.group, same.members = group, dict(islice(members, MOST_MEMBERS))
            same.times = {account: self._time(account, group) for account in same.members}
            after.append(same)
        self.campaigns = after
        self._show()

    def _time(self, account: int, group: Group) -> float:
        """When an account took up what its campaign pushes; when it began, if that is not known."""
        found = self.crowd.state.accounts[account]
        return min((found.named[box.key][0] for box in group.pushed if box.key in found.named), default=found.first)

    def _show(self) -> None:
        sizes = [len(campaign.members) for campaign in self.campaigns if campaign.verdict is None]
        self.metrics.campaigns.set(len(sizes))
        self.metrics.campaign_members.set(max(sizes, default=0))

    async def _judge_again(self) -> None:
        """Judges members again, once, whose latest answer let them pass."""
        passed = [
            (account, kept)
            for campaign in self.campaigns
            for account in campaign.members
            if (kept := self.recent.answers.get(account)) and kept.result["decision"] == "allow" and not kept.again
        ][:MOST_AGAIN]
        for live in (False, True):
            some = [(account, kept) for account, kept in passed if kept.live == live]
            for k in range(0, len(some), AT_ONCE):
                sequences = [kept.sequence for _, kept in some[k : k + AT_ONCE]]
                try:
                    pasts = [kept.summary for _, kept in some[k : k + AT_ONCE]]
                    results, model = await self.again(sequences, live, pasts)
                except Problem as problem:  # requests go first; the next look tries again
                    logger.warning("members of campaigns could not be judged again: %s", problem.detail)
                    self.crowd.changed = True
                    return
                for (account, kept), sequence, result in zip(some[k:], sequences, results, strict=False):
                    kept.again = True
                    # meanwhile the account may have been answered anew, or forgotten
                    current = self.recent.answers.get(account) is kept
                    if current and "error" not in result and result["decision"] != "allow":
                        self.metrics.retroactive[result["decision"]].inc()
                        self.publisher.found_out(sequence, result | {"retroactive": True}, model)
                        self.recent.keep(account, sequence, kept.summary, result, model["version"], live)

    def answered(self, answers: Sequence[tuple[Prepared, Result]], version: str, live: bool) -> None:
        """Keeps answers as the latest ones to their accounts."""
        for one, result in answers:
            if "error" not in result:
                self.recent.keep(self.crowd.number(one.account), one.sequence, one.summary, result, version, live)

    def forget(self, account: str) -> None:
        """Forgets an account."""
        number = self.crowd.number(account)
        self.recent.forget(number)
        for campaign in self.campaigns:
            campaign.members.pop(number, None)
            campaign.times.pop(number, None)

    def shown(self) -> list[dict[str, Any]]:
        """The campaigns as they are told, the least likely to be chance first."""
        model = self.model()
        encoder = model.bundle.encoder if model is not None else None
        return [self._campaign(campaign, encoder) for campaign in self.campaigns]

    def _campaign(self, campaign: Campaign, encoder: Encoder | None) -> dict[str, Any]:
        members = sorted(campaign.members.items(), key=lambda one: -one[1])
        return {
            "id": campaign.id,
            "accounts": len(members),
            "since": campaign.group.start,
            "found": campaign.found,
            "log10_expected": round(campaign.group.log10_expected, 2),
            "verdict": campaign.verdict,
            "pushed": [
                self._pushed(campaign, box, encoder)
                | {"members": [k for k, (account, _) in enumerate(members) if account in box.accounts]}
                for box in campaign.group.pushed[:MOST_VALUES]
            ],
            "members": [self._member(account, certainty, campaign.times[account]) for account, certainty in members],
        }

    def _member(self, account: int, certainty: float, taken_up: float) -> dict[str, Any]:
        kept = self.recent.answers.get(account)
        told = {"certainty": round(certainty, 4), "time": taken_up, "number": f"{account % 2**64:016x}"}
        if kept is None:
            return told
        return {
            **told,
            "sequence_id": self.feedback.pseudonyms.of(kept.id),
            "user_id": self.feedback.pseudonyms.of(kept.user_id) if kept.user_id else None,
            **{name: kept.result[name] for name in ("score_id", "score", "decision")},
        }

    def _pushed(self, campaign: Campaign, box: Box, encoder: Encoder | None) -> dict[str, Any]:
        if box.key != COPIES and box.key not in campaign.names and encoder is not None:
            holding = (self.recent.answers.get(account) for account in box.accounts)
            named = (kept.name(box.key, encoder) for kept in holding if kept is not None)
            if (name := next(filter(None, named), None)) is not None:
                campaign.names[box.key] = name
        column, value = campaign.names.get(box.key, (None, None))
        return {
            "column": column,
            "value": value,
            "side": SIDES[box.side],
            "copies": box.key == COPIES,
            "number": f"{box.key:016x}",
            "accounts": len(box.accounts),
            "usual": round(box.usual, 4),
            "start": box.start,
            "end": box.end,
        }

    async def say(self, which: str, verdict: dict[str, Any], caller: str, until: float) -> dict[str, int]:
        """Says one verdict on the kept answer of every member; durable when this returns.

        Args:
            which: id of the campaign.
            verdict: verdict, type, note, who.
            caller: name of the key.
            until: when the answer is due, in the event loop's time.

        Returns: how many members there are, how many of their answers are kept, and on how many the verdict is new.

        Raises:
            Problem: 404 no such campaign; 503 or 504 as `Feedback.say`. Some verdicts are recorded then, and saying it
                again records the others.
        """
        campaign = next((one for one in self.campaigns if one.id == which), None)
        if campaign is None:
            raise Problem(404, f"no campaign {which} is found now; see GET /v1/campaigns")
        kept = [one for account in campaign.members if (one := self.recent.answers.get(account)) is not None]
        recorded = 0
        for one in kept:
            score_id, sent = str(one.result["score_id"]), (one.sequence, one.result, one.version)
            try:
                _, new = await self.feedback.say(score_id, verdict, None, caller, until)
            except Problem as problem:
                if problem.status != 404:
                    raise
                # it was let pass, and not drawn for review
                _, new = await self.feedback.say(score_id, verdict, sent, caller, until)
            recorded += new
        campaign.verdict = verdict["verdict"]
        self._show()
        return {"accounts": len(campaign.members), "answers": len(kept), "recorded": recorded}


def _id_of(group: Group, taken: set[str]) -> str:
    """An id by what is pushed first, which another worker that knows the same crowd will mostly choose as well."""
    first, least = group.pushed[0], min(group.members)
    for words in (f"{first.key} {first.side}" if first.key != COPIES else f"{least}", f"{first.key} {least}"):
        found = hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
        if found not in taken:
            break
    return found
