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
        "concession_percent": settings.concession_percent,
        "imported_wait": settings.imported_concessions == "wait",
    }
    with transaction(engine, actor="prepaid migrate") as connection:
        unknown = queries.statement(_SQL, "unknown_currencies").execute(connection, asked).scalar()
        if unknown is not None:
            raise SettingError(f"PREPAID_SECOND_APPROVAL_ABOVE: there is no currency {unknown}.")
        for part in (
            "write_task_days",
            "write_grace_days",
            "write_concessions",
            "forget_limits",
            "write_limits",
        ):
            queries.statement(_SQL, part).execute(connection, asked)
    accounts.let_desk_act(engine)


def judge_open_approvals(engine: Engine) -> list[str]:
    """Take back the approvals of an earlier release that today's rules would not have taken.

    Finance is asked again. Returns each in a sentence; nothing when there are none.
    """
    with transaction(engine, actor="prepaid migrate") as connection:
        judged = queries.statement(_SQL, "judge_open_approvals").execute(connection, {})
        return [
            f"{row.said}; task {row.task_id} is withdrawn, finance is asked again" for row in judged
        ]
