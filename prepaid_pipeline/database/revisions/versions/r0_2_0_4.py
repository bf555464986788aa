"""Payment records are read in one way, and a time that cannot be believed hides no chargeback."""

from alembic import op

from prepaid_pipeline.database import queries

revision = "0.2.0.4"
down_revision = "0.2.0.3"


def upgrade() -> None:
    """Run the SQL file."""
    queries.run_file(op.get_bind(), "migrations/0.2.0.4")
