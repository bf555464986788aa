"""What the database is told of the settings: all who work with it follow the same ones."""

from sqlalchemy import Engine

from prepaid_pipeline.database import migrations, queries
from prepaid_pipeline.database.connections import transaction
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.people import entry
from prepaid_pipeline.settings.load import Settings

_SQL = "operations/service/installation"


def migrate(engine: Engine, settings: Settings) -> list[str]:
    """Bring the database to the newest schema, tell it the settings and let its people in.

    Returns what its operator should know of it, in sentences. Raises DatabaseNotReady and
    SettingError as ``migrations.upgrade`` and ``write_settings`` do.
    """
    was_at = migrations.upgrade(engine)
    write_settings(engine, settings)
    kept, told = entry.let_people_in(engine), list[str]()
    if kept is None:
        told.append(entry.how_to_close(engine))
    elif kept:
        told.append(
            "From now on only people of this database, and who has rights in it by name, may"
            f" connect to it: {', '.join(kept)} still may."
        )
    if was_at not in (None, migrations.newest()):
        told += [
            f"{name} is in {teams} on this server, and has no account for that in this database:"
            f" 'prepaid user adopt {name}' lets them read and decide here."
            for name, teams in entry.strangers(engine)
        ]
    return told


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
