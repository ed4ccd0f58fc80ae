"""Adds what verdicts on answers say of the false-alarm rate that was promised; answers from before it do not count."""

from alembic import op
from sqlalchemy import Column, Float, Integer, String

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Adds the columns."""
    for column in (Column("false_alarm_rate", Float), Column("length", Integer), Column("segment", String(64))):
        op.add_column("answers", column)
