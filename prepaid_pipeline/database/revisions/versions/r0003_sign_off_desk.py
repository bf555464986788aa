"""The sign-off desk: two people above a limit, four eyes, due dates, accounts and sessions."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0003_sign_off_desk")
