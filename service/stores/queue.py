"""What waits for a verdict, in which order, how far people have come, and what is known of one account."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, case, func, select

from service.model.active_learning import SAMPLED, teaching_order
from service.model.intervals import wilson
from service.schemas.terms import Order
from service.stores import exemptions
from service.stores.tables import ACCOUNT, answers, standing, verdicts

MOST_ORDERED = 5000  # the next answers for review are chosen among this many of the latest
MOST_OTHERS = 50  # answers to the same account that are told


def waiting(
    connection: Connection, most: int, exempting: bool, order: Order, only: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Answers without a standing verdict, but for those that came with one that was taken back.

    Args:
        most: how many.
        exempting: whether verdicts exempt accounts. What they exempt is left out then: it has been judged with the
            answer they are on.
        order: the most useful ones to judge first, with one in SAMPLED from the random sample; or the latest first; or
            those of the highest score.
        only: what the columns must hold, of those that are named.

    The sample of allowed answers teaches little, but without verdicts on it nobody knows what the model misses. It is
    judged in random order, as ids are drawn, since those judged must stand for the others.
    """
    what = (answers.c.score_id, answers.c.score, answers.c.type, answers.c.decision)
    which = select(*what).where(_waits(exempting), *(answers.c[name] == value for name, value in only.items()))
    if order == "teaching":
        open_ones = connection.execute(which.order_by(answers.c.time.desc()).limit(MOST_ORDERED)).all()
        chosen = _to_teach(open_ones, most)
    else:
        first = answers.c.time if order == "newest" else answers.c.score
        chosen = [row.score_id for row in connection.execute(which.order_by(first.desc()).limit(most))]
    found = connection.execute(select(answers).where(answers.c.score_id.in_(chosen)))
    rows = {row.score_id: told(row) for row in found}
    return [rows[i] for i in chosen]


def _waits(exempting: bool) -> Any:
    said = select(verdicts.c.number).where(verdicts.c.score_id == answers.c.score_id, standing()).exists()
    open_ones = ~said & (answers.c.retroactive | (answers.c.share > 0))
    return open_ones & ~exemptions.covered() if exempting else open_ones


def told(row: Any) -> dict[str, Any]:
    """An answer as it is told, with its events as they came."""
    return {**row._mapping, "events": from_json(row.events)}


def _to_teach(open_ones: Sequence[Any], most: int) -> list[str]:
    parts = [[row for row in open_ones if (row.decision == "allow") is allowed] for allowed in (True, False)]
    sample, flagged = sorted(row.score_id for row in parts[0])[:most], _teaching(parts[1], most)
    chosen: list[str] = []
    while len(chosen) < most and (sample or flagged):
        source = sample if sample and (len(chosen) % SAMPLED == 0 or not flagged) else flagged
        chosen.append(source.pop(0))
    return chosen


def _teaching(rows: Sequence[Any], most: int) -> list[str]:
    ids, scores, types, _ = zip(*rows, strict=True) if rows else ((),) * 4
    return [ids[i] for i in teaching_order(scores, types, most)]


def progress(connection: Connection, since: float, exempting: bool) -> dict[str, Any]:
    """How many answers have got the verdict that counts since a time, how many wait, and how precise the former were.

    Args:
        since: epoch seconds.
        exempting: as for `waiting`.
    """
    latest = select(func.max(verdicts.c.number)).where(standing()).group_by(verdicts.c.score_id)
    flagged = answers.c.decision != "allow"

    def count(which: Any) -> Any:
        return func.coalesce(func.sum(case((which, 1), else_=0)), 0)

    judged = (
        select(func.count(), *(count(flagged & (verdicts.c.verdict == says)) for says in ("anomalous", "normal")))
        .select_from(verdicts.join(answers, answers.c.score_id == verdicts.c.score_id))
        .where(verdicts.c.number.in_(latest), verdicts.c.time >= since)
    )
    total, right, wrong = connection.execute(judged).one()
    some = select(answers.c.score_id).where(_waits(exempting)).limit(MOST_ORDERED).subquery()
    left = connection.execute(select(func.count()).select_from(some)).scalar()
    bounds = [round(value, 4) for value in vars(wilson(right, right + wrong)).values()] if right + wrong else None
    return {"judged": total, "waiting": left, "right": right, "wrong": wrong, "precision": bounds}


def of_account(connection: Connection, score_id: str) -> dict[str, Any] | None:
    """An answer, all verdicts on it in order, and the other answers to its account, the latest first; None if unknown.

    Each of the others has the latest standing verdict on it, under "verdict".
    """
    one = connection.execute(select(answers).where(answers.c.score_id == score_id)).one_or_none()
    if one is None:
        return None
    said = select(verdicts).where(verdicts.c.score_id == score_id).order_by(verdicts.c.number)
    latest = (
        select(verdicts.c.verdict)
        .where(verdicts.c.score_id == answers.c.score_id, standing())
        .order_by(verdicts.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    what = (answers.c[name] for name in ("score_id", "time", "version", "score", "decision", "type"))
    whose = answers.c.user_id == one.user_id if one.user_id else one.sequence_id == ACCOUNT
    others = (
        select(*what, latest.label("verdict"))
        .where(whose)
        .where(answers.c.score_id != score_id)
        .order_by(answers.c.time.desc())
        .limit(MOST_OTHERS)
    )
    return {
        "answer": told(one),
        "verdicts": [dict(row._mapping) for row in connection.execute(said)],
        "others": [dict(row._mapping) for row in connection.execute(others)],
    }
