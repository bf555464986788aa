"""Sessions of people's own, membership that belongs to the database, and what a team may read."""

from alembic import op

from prepaid_pipeline.database import queries

revision = "0.2.0.7"
down_revision = "0.2.0.6"


def upgrade() -> None:
    """Run the SQL file."""
    queries.run_file(op.get_bind(), "migrations/0.2.0.7")
