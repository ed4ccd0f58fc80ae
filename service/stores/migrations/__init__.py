"""The steps of the store's schema, one a file, as Alembic's revisions "1", "2", ... in a line; additive only.

A step says in literal terms what it makes, and never changes again: the tables of `verdicts` move on without it.
"""
