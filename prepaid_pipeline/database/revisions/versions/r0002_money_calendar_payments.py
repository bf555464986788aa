"""Price lists, discounts, credit notes, changes of plan, business days, payments, reminders."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0002_money_calendar_payments")
