"""Alembic's way in; run by ``migrations.upgrade``, which gives the connection and commits."""

from __future__ import annotations

from alembic import context

# Not given the models, whose rules for names change with time: a revision names what it makes.
context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=True,
    transactional_ddl=True,  # true of SQLite too, since it is begun by hand
)
with context.begin_transaction():
    context.run_migrations()
