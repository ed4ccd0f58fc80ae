"""The steps of the store's schema, one per file: Alembic's revisions "1", "2", ... in one line, which only add things.

A step spells out what it makes and does not import the tables of `verdicts`. It never changes again, while they do.
"""
