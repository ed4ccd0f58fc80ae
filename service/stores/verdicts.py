"""The answers kept for review, and the verdicts on them, in SQLite or PostgreSQL."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    URL,
    Engine,
    case,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    null,
    select,
)
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from service.model.delivered import Counted
from service.model.exemption import Exemption
from service.model.lengths import CLASSES
from service.schemas.terms import Order
from service.stores import exemptions, queue
from service.stores.quality import Quality
from service.stores.tables import ACCOUNT, UNDONE, answers, standing, verdicts
from service.stores.upgrade import upgrade

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 5
WAIT_SECONDS = 10  # for a lock of SQLite's
NAME = "recguard.db"

READS = "recguard_reads"  # execution option of connections that only read


class Unopened(ValueError):
    """The database cannot be opened now; it may be later."""


class Store:
    """The database; every method is one transaction, durable when it returns, and blocks.

    Args:
        url: SQLAlchemy URL; empty for SQLite in the state directory.
        state: the state directory.

    Attributes:
        schema: version of the tables before they were opened, and now.

    Raises:
        ValueError: no such database, or a newer release upgraded it.
        Unopened: it cannot be reached, or the state directory cannot hold it now.
    """

    def __init__(self, url: str, state: Path) -> None:
        self.url = _parsed(url) if url else URL.create("sqlite", database=str(state / NAME))
        backend = self.url.get_backend_name()
        try:
            if not url:
                state.mkdir(parents=True, exist_ok=True)
            # test each connection before use, since the database may have been restarted
            limit = {"connect_timeout": CONNECT_SECONDS} if backend == "postgresql" else {}
            self.engine: Engine = create_engine(self.url, pool_pre_ping=True, connect_args=limit)
            if backend == "sqlite":
                event.listen(self.engine, "connect", configure_sqlite)
                event.listen(self.engine, "begin", _begin_sqlite)
            self.reading = self.engine.execution_options(**{READS: True})
            with self.engine.begin() as connection:
                self.schema = upgrade(connection)
        except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
            # the message leaves out the URL's query, since it may hold a password
            name = f"RECGUARD_STORE_URL {self.url.set(query={}).render_as_string()}" if url else str(state / NAME)
            kind = Unopened if isinstance(error, OperationalError | OSError) else ValueError
            raise kind(f"{name}: {str(error).splitlines()[0]}") from error
        if self.schema[0] != self.schema[1]:
            logger.info("verdict store: schema %s -> %s", *self.schema)

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds answers."""
        with self.engine.begin() as connection:
            connection.execute(insert(answers), rows)

    def say(
        self,
        score_id: str,
        verdict: dict[str, Any],
        row: dict[str, Any] | None = None,
        exempt_days: float = 0.0,
        note: Callable[..., None] | None = None,
    ) -> tuple[dict[str, Any], bool] | None:
        """Adds a verdict on a kept answer; returns the answer and whether the verdict is new, or None without answer.

        The answer has the key "contradicts": whether another verdict on it says something else. Both are kept. It also
        has "exempt_until": until when its account is exempt, in epoch seconds; None if it is not.

        The latest of several verdicts counts. Sending the same one again changes nothing, unless another was said in
        between. If no answer is kept under the id and `row` is given, `row` is kept with the verdict.

        Args:
            exempt_days: how long an account that was flagged is exempt once it is called normal; 0 for not at all.
            note: hears of an exemption, or of its end, before it is durable: as `Audit.note`, but not who. What it
                raises is raised, and then nothing is added.
        """
        which = select(answers).where(answers.c.score_id == score_id).with_for_update()
        with self.engine.begin() as connection:
            one = connection.execute(which).one_or_none()
            if one is None and row is not None:
                connection.execute(insert(answers), row)
                one = connection.execute(which).one_or_none()
            if one is None:
                return None
            on_it = select(verdicts).where(verdicts.c.score_id == score_id).order_by(verdicts.c.number.desc()).limit(1)
            latest = connection.execute(on_it.where(standing())).one_or_none()
            last = connection.execute(on_it.where(verdicts.c.who == verdict["who"])).one_or_none()
            said = ("verdict", "type", "note")
            new = last is None or any(getattr(last, name) != verdict[name] for name in said)
            new = new or (latest is not None and latest.verdict != verdict["verdict"])
            if new:
                connection.execute(insert(verdicts), {"score_id": score_id, "time": time.time(), **verdict})
            if new or verdict["verdict"] == "anomalous":  # one on another answer may have exempted the account since
                exemptions.take(connection, one, verdict, exempt_days, note or (lambda *_, **__: None))
            otherwise = select(verdicts.c.number).where(
                verdicts.c.score_id == score_id, verdicts.c.verdict != verdict["verdict"], standing()
            )
            contradicts = connection.execute(otherwise.limit(1)).one_or_none() is not None
            until = exemptions.until(connection, one) if exempt_days else None
            return {**one._mapping, "contradicts": contradicts, "exempt_until": until}, new

    def undo(
        self,
        score_id: str,
        who: str,
        why: str | None = None,
        exempt_days: float = 0.0,
        note: Callable[..., None] | None = None,
    ) -> tuple[dict[str, Any], bool] | None:
        """Takes back what one person said of a kept answer; returns the answer and whether there was anything.

        Nothing is deleted: it is another row. None if no such answer is kept. The answer has the keys "exempt_until",
        as for `say`, and "verdict", the latest that stands: somebody else's, or None.

        Args:
            who: gave the verdict.
            why: a note.
            exempt_days, note: as for `say`; `note` hears of every undo. What the verdict exempted goes, and what other
                verdicts exempted holds on. An exemption that a verdict `anomalous` has ended does not come back.
        """
        which = select(answers).where(answers.c.score_id == score_id).with_for_update()
        stands = select(verdicts).where(verdicts.c.score_id == score_id, standing()).order_by(verdicts.c.number.desc())
        with self.engine.begin() as connection:
            one = connection.execute(which).one_or_none()
            if one is None:
                return None
            said = connection.execute(stands.where(verdicts.c.who == who)).all()
            if said:
                row = {"score_id": score_id, "time": time.time(), "verdict": UNDONE, "note": why, "who": who}
                connection.execute(insert(verdicts), row)
                note = note or (lambda *_, **__: None)
                note("verdict undone", score_id=score_id)
                exemptions.take_back(connection, one, who, note)
            left = connection.execute(stands.limit(1)).one_or_none()
            until = exemptions.until(connection, one) if exempt_days else None
            return {**one._mapping, "verdict": left and left.verdict, "exempt_until": until}, bool(said)

    def exempt_stamp(self) -> exemptions.Stamp:
        """What is another one once exemptions have changed, and is told faster than all of them."""
        with self.reading.begin() as connection:
            return exemptions.stamp(connection)

    def exempt(self) -> list[Exemption]:
        """The exemptions that have not lapsed, the latest ones if there are too many."""
        with self.reading.begin() as connection:
            return exemptions.known(connection)

    def unexempt(self, account: str) -> bool:
        """Ends the exemptions of an account, named as in the store; returns whether there was one."""
        with self.engine.begin() as connection:
            return exemptions.end(connection, account)

    def quality(self) -> Quality:
        """Precision and recall over all kept answers, by the latest verdict on each."""
        latest = select(func.max(verdicts.c.number)).where(standing()).group_by(verdicts.c.score_id)
        said = select(verdicts.c.score_id, verdicts.c.verdict).where(verdicts.c.number.in_(latest)).subquery()
        flagged, is_sample = answers.c.decision != "allow", answers.c.share > 0

        def total(which: Any, value: Any = 1) -> Any:
            return func.sum(case((which, value), else_=0))

        missed = ~flagged & is_sample
        counted = select(
            total(flagged & is_sample),
            total(flagged & (said.c.verdict == "anomalous")),
            total(flagged & (said.c.verdict == "normal")),
            total(missed, 1.0 / func.nullif(answers.c.share, 0)),
            total(missed & (said.c.verdict == "anomalous")),
            total(missed & (said.c.verdict == "normal")),
        ).select_from(answers.outerjoin(said, said.c.score_id == answers.c.score_id))
        with self.reading.begin() as connection:
            found = connection.execute(counted).one()
        return Quality.of(*(value or 0 for value in found))

    def counted(self, version: str, by_length: bool, scored: bool = False) -> list[Counted]:
        """Each account with an answer of a bundle version that counts for it, by the latest of these.

        The latest verdict on any answer to an account is the one on the account.

        Args:
            by_length: whether an account counts once for each class of length.
            scored: whether judged accounts are told with their scores.
        """
        of_version = answers.c.version == version
        said = (
            select(ACCOUNT.label("account"), func.max(verdicts.c.number).label("number"))
            .select_from(answers.join(verdicts, verdicts.c.score_id == answers.c.score_id))
            .where(of_version, standing())
            .group_by(ACCOUNT)
            .subquery()
        )
        events = case(*((answers.c.length < n, k) for k, n in enumerate(list(CLASSES)[1:])), else_=len(CLASSES) - 1)
        alike = ("events", "segment", "decision", "share", "false_alarm_rate")
        place = func.row_number().over(
            partition_by=[ACCOUNT, events] if by_length else ACCOUNT,
            order_by=(answers.c.time.desc(), answers.c.score_id),
        )
        each = (
            select(
                ACCOUNT.label("account"),
                events.label("events"),
                func.coalesce(answers.c.segment, "").label("segment"),
                *(answers.c[name] for name in alike[2:]),
                answers.c.score,
                place.label("place"),
            )
            .where(of_version, answers.c.false_alarm_rate.is_not(None), answers.c.share > 0)
            .subquery()
        )
        score = case((verdicts.c.verdict.is_not(None), each.c.score), else_=None) if scored else null()
        columns = [*(each.c[name] for name in alike), verdicts.c.verdict, score.label("score")]
        grouped = (
            select(*columns, func.count())
            .select_from(
                each.outerjoin(said, said.c.account == each.c.account).outerjoin(
                    verdicts, verdicts.c.number == said.c.number
                )
            )
            .where(each.c.place == 1)
            .group_by(*(columns if scored else columns[:-1]))
        )
        with self.reading.begin() as connection:
            return [
                Counted(*row[:5], None if row.verdict is None else row.verdict == "normal", row[-1], row.score)
                for row in connection.execute(grouped)
            ]

    def queue(self, most: int, exempting: bool = False, order: Order = "teaching", **only: str) -> list[dict[str, Any]]:
        """Answers that wait for a verdict, as `queue.waiting` has them."""
        with self.reading.begin() as connection:
            return queue.waiting(connection, most, exempting, order, only)

    def progress(self, since: float, exempting: bool) -> dict[str, Any]:
        """How far people have come, as `queue.progress` has it."""
        with self.reading.begin() as connection:
            return queue.progress(connection, since, exempting)

    def of_account(self, score_id: str) -> dict[str, Any] | None:
        """An answer and what else is known of its account, as `queue.of_account` has it."""
        with self.reading.begin() as connection:
            return queue.of_account(connection, score_id)

    def judged(self) -> Iterator[dict[str, Any]]:
        """Each answer that has a verdict, with the latest one, and whether another verdict contradicts it."""
        latest = select(func.max(verdicts.c.number)).where(standing()).group_by(verdicts.c.score_id)
        against = (
            select(verdicts.c.score_id)
            .where(standing())
            .group_by(verdicts.c.score_id)
            .having(func.count(func.distinct(verdicts.c.verdict)) > 1)
        )
        which = (
            select(
                answers,
                verdicts.c.verdict,
                verdicts.c.type.label("said_type"),
                answers.c.score_id.in_(against).label("conflict"),
            )
            .join(verdicts, verdicts.c.score_id == answers.c.score_id)
            .where(verdicts.c.number.in_(latest))
            .order_by(verdicts.c.number)
        )
        with self.reading.begin() as connection:
            for row in connection.execution_options(yield_per=1000).execute(which):
                yield {**row._mapping, "events": from_json(row.events)}

    def prune(self, days: float, most: int) -> int:
        """Removes answers older than `days`, and the oldest beyond `most`, with their verdicts; returns how many.

        Exemptions go once they have lapsed, or beyond MOST_EXEMPT; an answer's do not go with it.
        """
        with self.engine.begin() as connection:
            edge = connection.execute(
                select(answers.c.time).order_by(answers.c.time.desc()).offset(most).limit(1)
            ).scalar()
            oldest = max(time.time() - 86_400 * days, edge if edge is not None else 0.0)
            exemptions.bound(connection)
            return _remove(connection, answers.c.time <= oldest)

    def forget(self, user: str) -> int:
        """Removes all answers of a user, named as in the store, and exemptions; returns how many answers there were.

        A sequence that came without a user is taken for the user that it is called after. In SQLite nothing of them is
        left in the files, also not in the log of what was written.

        Raises:
            OperationalError: somebody reads for so long that this log of SQLite's cannot be emptied; ask again.
        """
        alone = answers.c.user_id.is_(None) & (answers.c.sequence_id == user)
        with self.engine.begin() as connection:
            exemptions.end(connection, user)
            count = _remove(connection, (answers.c.user_id == user) | alone)
        if self.url.get_backend_name() == "sqlite":
            with closing(self.engine.raw_connection()) as connection:
                busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise OperationalError("wal_checkpoint", None, TimeoutError("another process reads the store"))
        return count

    def close(self) -> None:
        self.engine.dispose()


def _parsed(url: str) -> URL:
    """Parses the URL. The ValueError does not quote it, since the password may be anywhere in a malformed URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise ValueError(
            "RECGUARD_STORE_URL is not a URL like postgresql+psycopg://user:password@host/database; "
            "an @ in a password is written %40"
        )
    return parsed


def _remove(connection: Any, which: Any) -> int:
    connection.execute(delete(verdicts).where(verdicts.c.score_id.in_(select(answers.c.score_id).where(which))))
    return int(connection.execute(delete(answers).where(which)).rowcount)


def _begin_sqlite(connection: Any) -> None:
    """Lets a writer take its lock at once, since after a read it might fail to get it; a reader blocks nobody."""
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def configure_sqlite(connection: Any, _: Any = None) -> None:
    """Makes a commit durable before it returns, and leaves transactions to SQLAlchemy."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={1000 * WAIT_SECONDS}")
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # others change the mode of a new file, too, for which SQLite does not wait
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):  # which overwrites what is deleted
        connection.execute(f"PRAGMA {pragma}")
