"""The accounts that verdicts exempt from being flagged, as the store of verdicts keeps them.

There is a row for each verdict that exempts, so that taking one back takes what it gave and nothing else.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from service.model.exemption import Exemption, most_allowed
from service.stores.tables import ACCOUNT, answers, exemptions

logger = logging.getLogger(__name__)
MOST_EXEMPT = 10_000  # verdicts that exempt; the one said longest ago gives way
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
    new = Exemption(account, answer.version, answer.score_id, most, now, now + DAY * days)
    connection.execute(delete(exemptions).where(_of(answer, verdict["who"])))
    connection.execute(insert(exemptions), {**asdict(new), "who": verdict["who"]})
    note("exemption", **told, most=most, until=new.until)


def take_back(connection: Connection, answer: Any, who: str, note: Callable[..., None]) -> None:
    """Ends what a verdict gave, once it is undone; what other verdicts gave the account holds on."""
    if not connection.execute(delete(exemptions).where(_of(answer, who))).rowcount:
        return
    told = {"score_id": answer.score_id, "version": answer.version}
    left = select(exemptions.c.most, exemptions.c.until).where(*_mine(answer), _holds())
    held = connection.execute(left.order_by(exemptions.c.until.desc()).limit(1)).one_or_none()
    if held is None:
        note("exemption ended", **told)
    else:
        note("exemption", **told, **held._mapping)


def end(connection: Connection, account: str) -> bool:
    """Ends the exemptions of an account; returns whether there was one."""
    return bool(connection.execute(delete(exemptions).where(exemptions.c.account == account)).rowcount)


def until(connection: Connection, answer: Any) -> float | None:
    """Until when the account of an answer is exempt by its version, in epoch seconds; None if it is not."""
    latest = select(func.max(exemptions.c.until)).where(*_mine(answer), _holds())
    found: float | None = connection.execute(latest).scalar()
    return found


def stamp(connection: Connection) -> Stamp:
    """What is another one after whatever was added, renewed or removed."""
    since = exemptions.c.since
    # the sum shows one that was said before the latest, and whose transaction ended after it
    count, *times = connection.execute(select(func.count(), func.max(since), func.sum(since))).one()
    return count, *(at or 0.0 for at in times)


def known(connection: Connection) -> list[Exemption]:
    """The exemptions that have not lapsed, MOST_EXEMPT at most, those by the latest verdicts."""
    which = (
        select(*(exemptions.c[one.name] for one in fields(Exemption)))
        .where(_holds())
        .order_by(exemptions.c.since.desc())
        .limit(MOST_EXEMPT)
    )
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


def _of(answer: Any, who: str) -> ColumnElement[bool]:
    return and_(exemptions.c.score_id == answer.score_id, exemptions.c.who == who)


def _mine(answer: Any) -> tuple[ColumnElement[bool], ...]:
    account = answer.user_id or answer.sequence_id
    return exemptions.c.account == account, exemptions.c.version == answer.version


def _holds() -> ColumnElement[bool]:
    return exemptions.c.until > time.time()
