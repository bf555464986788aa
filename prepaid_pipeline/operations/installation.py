"""What the database is told of the settings: all who work with it follow the same ones."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from prepaid_pipeline.database import migrations, queries
from prepaid_pipeline.database.connections import transaction
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.people import entry
from prepaid_pipeline.settings.load import Settings

_SQL = "operations/service/installation"


def migrate(engine: Engine, settings: Settings) -> list[str]:
    """Bring the database to the newest schema, tell it the settings and let its people in; open
    approvals are judged by the rules of now.

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
    return told + [f"Approval taken back: {said}." for said in judge_open_approvals(engine)]


def migrate_embedded(engine: Engine, settings: Settings) -> list[str]:
    """The same for the embedded server's database, unless it is the newest already.

    Of several commands at once one does it, and the others wait: none begins before the settings
    are written. A database of a newer program is left to whoever needs it. Raises as ``migrate``.
    """
    if not migrations.is_behind(engine):
        return []
    with _alone(settings):
        if not migrations.is_behind(engine):
            return []
        told = migrate(engine, settings)
    return [*told, f"The embedded database is at migration {migrations.newest()} now."]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Among the commands on this PREPAID_HOME; whoever dies lets the next one in."""
    with (settings.home / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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


def judge_open_approvals(engine: Engine) -> list[str]:
    """Take back the approvals of an earlier release that today's rules would not have taken.

    Finance is asked again. Returns each in a sentence; nothing when there are none.
    """
    with transaction(engine, actor="prepaid migrate") as connection:
        judged = queries.statement(_SQL, "judge_open_approvals").execute(connection, {})
        return [
            f"{row.said}; task {row.task_id} is withdrawn, finance is asked again" for row in judged
        ]
