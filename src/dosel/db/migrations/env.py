"""Run by Alembic: the steps, on the connection that `migrate` has opened."""

from alembic import context

from dosel.db.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
