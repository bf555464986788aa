"""Release 0.1.0: the whole schema."""

from alembic import op

from prepaid_pipeline.database import queries

revision = "0.1.0"
down_revision = None


def upgrade() -> None:
    """Run the SQL file."""
    queries.run_file(op.get_bind(), "migrations/0.1.0")
