"""A sealed audit log, receipts in the outbox, erasure."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0006_reliability")
