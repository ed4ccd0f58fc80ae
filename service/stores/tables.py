"""The tables of the store of verdicts, as they are after the last step in `migrations`."""

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    func,
    select,
)

metadata = MetaData()

answers = Table(
    "answers",
    metadata,
    Column("score_id", String(32), primary_key=True),
    Column("time", Float, nullable=False, index=True),  # epoch seconds
    Column("sequence_id", String(256), nullable=False),
    Column("user_id", String(256), index=True),
    Column("version", String(128), nullable=False),
    Column("score", Float, nullable=False),
    Column("decision", String(8), nullable=False),
    Column("type", String(128)),
    # probability of being kept; 0 if it came with its verdict, or in retrospect
    Column("share", Float, nullable=False),
    Column("events", Text, nullable=False),  # JSON, as they came
    # by the bundle's curves; only of the one answer a day that counts for an account at a class of length
    Column("false_alarm_rate", Float),
    Column("length", Integer),  # events that were scored
    Column("segment", String(64)),
    # flagged once a campaign was found; the others without a share came with their verdict
    Column("retroactive", Boolean, nullable=False, server_default=false()),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("score_id", ForeignKey("answers.score_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("time", Float, nullable=False),
    Column("verdict", String(16), nullable=False),  # UNDONE takes back what the same person said of it before
    Column("type", String(128)),
    Column("note", Text),
    Column("who", String(64), nullable=False),
    Index("ix_verdicts_score_id_verdict", "score_id", "verdict"),
)

exemptions = Table(  # what each verdict gives; they outlive the answers
    "exemptions",
    metadata,
    *(Column(name, String(size), primary_key=True) for name, size in (("score_id", 32), ("who", 64))),
    *(Column(name, String(size), nullable=False) for name, size in (("account", 256), ("version", 128))),
    *(Column(name, Float, nullable=False) for name in ("most", "since", "until")),
    Index("ix_exemptions_account", "account"),
)
ACCOUNT = func.coalesce(answers.c.user_id, answers.c.sequence_id)  # whose an answer is
UNDONE = "undone"


def standing() -> ColumnElement[bool]:
    """Whether a row of `verdicts` is a verdict that its giver has not taken back."""
    later = verdicts.alias()
    same = later.c.score_id == verdicts.c.score_id, later.c.who == verdicts.c.who
    undone = select(later.c.number).where(*same, later.c.number > verdicts.c.number, later.c.verdict == UNDONE)
    return (verdicts.c.verdict != UNDONE) & ~undone.exists()
