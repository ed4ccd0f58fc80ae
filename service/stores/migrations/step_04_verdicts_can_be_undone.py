"""Keeps what each verdict exempts by itself, so that it can be taken back, and what was flagged in retrospect.

A release before it takes a verdict that was undone for one that says anomalous, so it must not start on this schema.
"""

from alembic import op
from sqlalchemy import Boolean, Column, Float, String, false, text

revision = "4"
down_revision = "3"
# what verdicts on several answers gave together is taken for what the latest of them gave
WHO = """
    SELECT *, coalesce((
        SELECT who FROM verdicts WHERE verdicts.score_id = exemptions.score_id AND verdict = 'normal'
        ORDER BY number DESC LIMIT 1
    ), '') AS who FROM exemptions
"""


def upgrade() -> None:
    """Makes the table of exemptions anew; a replica of the release before, which names nobody, can still add to it."""
    rows = [dict(row._mapping) for row in op.get_bind().execute(text(WHO))]
    op.drop_table("exemptions")
    table = op.create_table(
        "exemptions",
        Column("score_id", String(32), primary_key=True),
        Column("who", String(64), primary_key=True, server_default=""),
        Column("account", String(256), nullable=False),
        Column("version", String(128), nullable=False),
        Column("most", Float, nullable=False),
        Column("since", Float, nullable=False),
        Column("until", Float, nullable=False),
    )
    op.create_index("ix_exemptions_account", "exemptions", ["account"])
    op.bulk_insert(table, rows)
    op.add_column("answers", Column("retroactive", Boolean, nullable=False, server_default=false()))
    # the others without a share came with their verdict
    op.execute("UPDATE answers SET retroactive = (share = 0 AND score_id NOT IN (SELECT score_id FROM verdicts))")
