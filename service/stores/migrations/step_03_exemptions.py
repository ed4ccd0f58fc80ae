"""Adds the accounts that a verdict exempts from being flagged; verdicts from before it exempt nobody."""

from alembic import op
from sqlalchemy import Column, Float, String

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "exemptions",
        Column("account", String(256), primary_key=True),
        Column("version", String(128), primary_key=True),
        Column("score_id", String(32), nullable=False),
        Column("most", Float, nullable=False),
        Column("since", Float, nullable=False),
        Column("until", Float, nullable=False),
    )
