"""Effects of the process are called where they are read."""

from alembic import op

from prepaid_pipeline.database import migrations

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL file."""
    migrations.run_file(op.get_bind(), "0007_from_0006")
