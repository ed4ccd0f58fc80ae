"""Brings the store's tables to this release's schema, with the numbered steps in `migrations`.

The table `schema_version` in the database names the last step taken. Alembic finds and orders the steps, and gives them
their operations. This module adds the lock, the transaction and the refusal of newer databases, so Alembic needs no
env.py and no ini file.
"""

import logging
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

STEPS = Path(__file__).parent / "migrations"
UNVERSIONED = "0"  # an empty database, or one made by a release from before there were versions
VERSION_TABLE = "schema_version"
LOCK = 7267  # PostgreSQL's advisory lock, the same in all releases

logging.getLogger("alembic").setLevel(logging.WARNING)  # otherwise it logs its dialect at every start


def upgrade(connection: Connection, steps: Path = STEPS) -> tuple[str, str]:
    """Takes the steps that a database lacks; returns the version of its schema before and after.

    All steps run in the caller's transaction, so if one fails the database stays as it was. If several processes come
    at once, one takes the steps and the others wait: in PostgreSQL for the lock taken here, in SQLite for the caller's
    `BEGIN IMMEDIATE`.

    Args:
        connection: a connection in a transaction.
        steps: folder of the steps' files.

    Raises:
        ValueError: a newer release upgraded the database; nothing is changed.
        SQLAlchemyError: a step failed.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    script = ScriptDirectory(steps, version_locations=[steps])
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found = list(script.walk_revisions())[::-1]
    versions = [step.revision for step in found]
    before = context.get_current_revision()
    if before is not None and before not in versions:
        raise ValueError(
            f"its schema is {before}, and this release knows none after {versions[-1]}; "
            "run the release that upgraded it or a newer one, or restore a copy from before"
        )
    with Operations.context(context):
        for step in found[versions.index(before) + 1 if before else 0 :]:
            step.module.upgrade()
            context.stamp(script, step.revision)
    return before or UNVERSIONED, versions[-1]
