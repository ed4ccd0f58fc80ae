"""The accounts that verdicts exempt from being flagged, as the store of verdicts keeps them."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.model.exemption import Exemption, most_allowed
from service.stores.tables import ACCOUNT, answers, exemptions, standing, verdicts

logger = logging.getLogger(__name__)
MOST_EXEMPT = 10_000  # accounts; the one judged longest ago gives way
DAY = 86_400.0  # seconds
Stamp = tuple[int, float, float]  # how many exemptions there are, the time of the latest, and the sum of the times


def take(connection: Connection, answer: Any, verdict: dict[str, Any], days: float, note: Callable[..., None]) -> None:
    """Does what a verdict on an answer does to the exemptions of its account; arguments as for `Store.say`."""
    account, now = answer.user_id or answer.sequence_id, time.time()
    told = {"score_id": answer.score_id, "version": answer.version}
    if verdict["verdict"] == "anomalous":
        if end(connection, account):
            note("exemption ended", **told)
        return
    most = most_allowed(answer.score)
    if not days or answer.decision == "allow" or most is None:
        return
    mine = (exemptions.c.account == account) & (exemptions.c.version == answer.version)
    new = Exemption(account, answer.version, answer.score_id, most, now, now + DAY * days)
    try:
        with connection.begin_nested():
            connection.execute(insert(exemptions), asdict(new))
    except IntegrityError:  # there is one, maybe by a verdict that was said at the same time
        # what was judged before is not taken back by a verdict on something that looks better
        holds = select(exemptions.c.most).where(mine, exemptions.c.until > now).with_for_update()
        new = replace(new, most=max(most, connection.execute(holds).scalar() or 0.0))
        if not connection.execute(update(exemptions).where(mine).values(asdict(new))).rowcount:
            return  # somebody has called the account anomalous meanwhile
    note("exemption", **told, most=new.most, until=new.until)


def take_back(connection: Connection, answer: Any, days: float, note: Callable[..., None]) -> None:
    """Leaves of an account's exemption what other verdicts carry, once one that called an answer normal is undone."""
    account, now = answer.user_id or answer.sequence_id, time.time()
    mine = (exemptions.c.account == account) & (exemptions.c.version == answer.version)
    held = connection.execute(select(exemptions).where(mine).with_for_update()).one_or_none()
    if held is None:
        return
    of_account = verdicts.join(answers, answers.c.score_id == verdicts.c.score_id)
    said = select(verdicts.c.time, answers.c.score, answers.c.score_id).select_from(of_account)
    said = said.where(account == ACCOUNT, standing())
    ended = select(func.max(verdicts.c.number)).select_from(of_account).where(account == ACCOUNT, standing())
    last = connection.execute(ended.where(verdicts.c.verdict == "anomalous")).scalar() or 0
    genuine = (verdicts.c.verdict == "normal") & (answers.c.decision != "allow") & (verdicts.c.number > last)
    left = connection.execute(
        said.where(genuine, answers.c.version == answer.version, verdicts.c.time > now - DAY * days)
    ).all()
    told = {"score_id": answer.score_id, "version": answer.version}
    allowed = [most for row in left if (most := most_allowed(row.score)) is not None]
    if not allowed:
        connection.execute(delete(exemptions).where(mine))
        note("exemption ended", **told)
        return
    latest = max(left, key=lambda row: row.time)
    # a new `since`, by which other processes notice
    new = {"score_id": latest.score_id, "most": max(allowed), "since": now, "until": latest.time + DAY * days}
    connection.execute(update(exemptions).where(mine).values(new))
    note("exemption", **told, most=new["most"], until=new["until"])


def end(connection: Connection, account: str) -> bool:
    """Ends the exemptions of an account; returns whether there was one."""
    return bool(connection.execute(delete(exemptions).where(exemptions.c.account == account)).rowcount)


def until(connection: Connection, answer: Any) -> float | None:
    """Until when the account of an answer is exempt by its version, in epoch seconds; None if it is not."""
    mine = exemptions.c.account == (answer.user_id or answer.sequence_id), exemptions.c.version == answer.version
    found: float | None = connection.execute(select(exemptions.c.until).where(*mine, _holds())).scalar()
    return found


def stamp(connection: Connection) -> Stamp:
    """What is another one after whatever was added, renewed or removed."""
    since = exemptions.c.since
    # the sum shows one that was said before the latest, and whose transaction ended after it
    count, *times = connection.execute(select(func.count(), func.max(since), func.sum(since))).one()
    return count, *(at or 0.0 for at in times)


def known(connection: Connection) -> list[Exemption]:
    """The exemptions that have not lapsed, MOST_EXEMPT at most, those by the latest verdicts."""
    which = select(exemptions).where(_holds()).order_by(exemptions.c.since.desc()).limit(MOST_EXEMPT)
    return [Exemption(**row._mapping) for row in connection.execute(which)]


def covered() -> ColumnElement[bool]:
    """Whether an answer of `answers` is one that an exemption allows."""
    mine = exemptions.c.account == ACCOUNT, exemptions.c.version == answers.c.version
    allowed = select(exemptions.c.account).where(*mine, _holds(), exemptions.c.most >= answers.c.score)
    return (answers.c.decision != "allow") & allowed.exists()


def bound(connection: Connection) -> None:
    """Removes exemptions that have lapsed, and those judged longest ago beyond MOST_EXEMPT."""
    connection.execute(delete(exemptions).where(~_holds()))
    oldest = select(exemptions.c.since).order_by(exemptions.c.since.desc()).offset(MOST_EXEMPT).limit(1)
    edge = connection.execute(oldest).scalar()
    if edge is not None:
        gone = connection.execute(delete(exemptions).where(exemptions.c.since <= edge)).rowcount
        logger.warning("%d exemptions gave way to later ones, as at most %d are kept", gone, MOST_EXEMPT)


def _holds() -> ColumnElement[bool]:
    return exemptions.c.until > time.time()
