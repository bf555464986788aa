"""What the database is told of the settings: all who work with it follow the same ones."""

from sqlalchemy import Engine

from prepaid_pipeline.database import migrations, queries
from prepaid_pipeline.database.connections import transaction
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.load import Settings

_SQL = "operations/service/installation"


def write_settings(engine: Engine, settings: Settings) -> None:
    """Let the database know the settings that hold for everybody who works with its tables.

    What changes is audited. Raises SettingError for one that this server or database cannot use.
    """
    migrations.write_timezone(engine, settings.timezone)
    limits = settings.second_approval_above
    asked = {
        "task_days": settings.task_days,
        "grace_days": settings.grace_days,
        "currencies": list(limits),
        "amounts": list(limits.values()),
    }
    with transaction(engine, actor="prepaid migrate") as connection:
        unknown = queries.statement(_SQL, "unknown_currencies").execute(connection, asked).scalar()
        if unknown is not None:
            raise SettingError(f"PREPAID_SECOND_APPROVAL_ABOVE: there is no currency {unknown}.")
        for part in ("write_task_days", "write_grace_days", "forget_limits", "write_limits"):
            queries.statement(_SQL, part).execute(connection, asked)
    accounts.let_desk_act(engine)
