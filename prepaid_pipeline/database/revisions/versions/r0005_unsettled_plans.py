"""Claims, and what is unsettled, in a narrow table of their own."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0005_unsettled_plans")
