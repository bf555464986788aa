"""Alembic's entry point: runs the revisions on the connection of ``migrations.upgrade``."""

from alembic import context

from prepaid_pipeline.database.migrations import VERSION_SCHEMA, VERSION_TABLE

# The caller's transaction holds the lock, so all revisions are one transaction: all or none.
context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=VERSION_SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
