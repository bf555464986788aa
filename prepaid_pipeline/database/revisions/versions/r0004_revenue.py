"""Revenue by country, retention, deferred revenue, reporting currency; what the report shows."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0004_revenue")
