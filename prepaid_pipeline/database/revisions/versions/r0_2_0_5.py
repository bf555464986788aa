"""Signing in at Dagster's UI."""

from alembic import op

from prepaid_pipeline.database import queries

revision = "0.2.0.5"
down_revision = "0.2.0.4"


def upgrade() -> None:
    """Run the SQL file."""
    queries.run_file(op.get_bind(), "migrations/0.2.0.5")
