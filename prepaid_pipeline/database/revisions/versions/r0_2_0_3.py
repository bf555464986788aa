"""Identity of payment records, checkouts that bring no money, and what no column holds."""

from alembic import op

from prepaid_pipeline.database import queries

revision = "0.2.0.3"
down_revision = "0.2.0.2"


def upgrade() -> None:
    """Run the SQL file."""
    queries.run_file(op.get_bind(), "migrations/0.2.0.3")
