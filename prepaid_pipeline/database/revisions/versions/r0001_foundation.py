"""The first schema."""

from alembic import op

from prepaid_pipeline.database.migrations import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables, functions, triggers, views and rights."""
    run_file(op.get_bind(), "0001_foundation")
