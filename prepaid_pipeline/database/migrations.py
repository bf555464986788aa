"""Migrations: Alembic runs the SQL files of ``sql/migrations``, all of them or none.

The only way back is a backup: a downgrade would throw away invoices and the audit log.
"""

from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import adoption, queries
from prepaid_pipeline.database.connections import FORBIDDEN, sqlstate, transaction
from prepaid_pipeline.errors import DatabaseNotReady, SettingError

# Not in Dagster's schema: its storage, in the same database, has an alembic_version of its own.
VERSION_SCHEMA, VERSION_TABLE = "prepaid", "alembic_version"
# jsonb and partial indexes are older; views with the caller's rights and MERGE came with 15.
OLDEST_SERVER = 15

REVISIONS = Path(__file__).parent / "revisions"
_SQL = "database/migrations"
_NO_SUCH_EXTENSION = ("0A000", "58P01")
_NO_SUCH_ZONE = "22023"
# Another upgrade made the same schema, or table, at the same moment.
_MADE_MEANWHILE = ("23505", "42P06", "42P07")


@cache
def known() -> tuple[str, ...]:
    """The ids of the migrations that this program has, in the order in which they run."""
    ids = (name.rpartition("/")[2] for name in queries.names("migrations"))
    ours = (number for number in ids if number[0].isdigit())
    return tuple(sorted(ours, key=lambda number: [int(part) for part in number.split(".")]))


def newest() -> str:
    """The id of the newest migration, such as '0.1.0'."""
    return known()[-1]


def applied(connection: Connection) -> str | None:
    """The id of the newest migration that has run here; None if none has."""
    if not queries.statement(_SQL, "is_versioned").execute(connection, {}).scalar():
        return None
    number: str | None = queries.statement(_SQL, "applied").execute(connection, {}).scalar()
    return number


def upgrade(engine: Engine) -> str | None:
    """Bring the database to the newest schema; two at once wait for each other. Returns the
    migration that it was at, None for an empty one.

    Raises DatabaseNotReady if the server cannot be reached or is too old, if the database is at a
    migration from which no way leads here or differs from what it should be, or if the server
    refuses; then nothing of the migration stays.
    """
    try:
        try:
            return _upgrade(engine)
        except DBAPIError as error:
            if sqlstate(error) not in _MADE_MEANWHILE:
                raise
            return _upgrade(engine)
    except DBAPIError as error:
        raise DatabaseNotReady(_refusal(error)) from error


def _upgrade(engine: Engine) -> str | None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(REVISIONS).replace("%", "%%"))
    with engine.begin() as connection:
        _require_server(connection)
        _require_utf8(connection)
        if (number := applied(connection)) == newest():
            return number
        if not queries.statement(_SQL, "is_versioned").execute(connection, {}).scalar():
            queries.statement(_SQL, "make_schema").execute(connection, {})
            queries.statement(_SQL, "make_versions").execute(connection, {})
        queries.statement(_SQL, "lock").execute(connection, {})
        # Again: another upgrade may have held the lock until now.
        if (number := applied(connection)) == newest():
            return number
        _refuse_unknown(number)
        if number == adoption.LAST:
            adoption.adopt(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return number


def write_timezone(engine: Engine, zone: ZoneInfo) -> None:
    """Let the database count its days in ``zone``, as the program does; a change is audited.

    Raises SettingError for a zone that the server does not know.
    """
    try:
        with transaction(engine, actor="prepaid migrate") as connection:
            write = queries.statement(_SQL, "write_timezone")
            write.execute(connection, {"timezone": str(zone)})
    except DBAPIError as error:
        if sqlstate(error) != _NO_SUCH_ZONE:
            raise DatabaseNotReady(_refusal(error)) from error
        raise SettingError(
            f"PREPAID_TIMEZONE={str(zone)!r}: the database server does not know this time zone."
            " Update its time zone data, or name the zone as pg_timezone_names does."
        ) from error


def written_timezone(engine: Engine) -> str:
    """The name of the time zone in which the database counts its days."""
    with engine.connect() as connection:
        return str(queries.statement(_SQL, "timezone").execute(connection, {}).scalar_one())


def no_way_from(number: str) -> str | None:
    """Why this program cannot bring a database at ``number`` to the newest, and what to do; None
    if it can.
    """
    if number in known() or number == adoption.LAST:
        return None
    if number in adoption.EARLIER:
        return (
            f"it is from before release {adoption.FIRST_RELEASE}, which takes over {adoption.LAST}"
            f" only. Bring it to {adoption.LAST} with the last program before that release"
            " (docs/upgrade.md)."
        )
    return (
        f"this program knows only up to {newest()}. Install the newer version of prepaid-pipeline."
    )


def is_behind(engine: Engine) -> bool:
    """Whether this program can bring the database to a newer schema than it has.

    Raises DatabaseNotReady if it cannot be reached.
    """
    try:
        with engine.connect() as connection:
            number = applied(connection)
    except DBAPIError as error:
        raise DatabaseNotReady(_refusal(error)) from error
    return number != newest() and (number is None or no_way_from(number) is None)


def require_current(engine: Engine) -> None:
    """Raise DatabaseNotReady unless the schema is the newest; the message says what to do."""
    try:
        with engine.connect() as connection:
            number = applied(connection)
    except DBAPIError as error:
        raise DatabaseNotReady(_refusal(error)) from error
    _refuse_unknown(number)
    if number is None:
        raise DatabaseNotReady(
            "The database has no tables of this product yet. Run 'prepaid migrate'."
        )
    if number != newest():
        raise DatabaseNotReady(
            f"The database is at migration {number}, this program needs {newest()}."
            " Run 'prepaid migrate'."
        )


def _require_server(connection: Connection) -> None:
    (version, *_) = connection.dialect.server_version_info or (0,)
    if int(version) < OLDEST_SERVER:
        raise DatabaseNotReady(
            f"The server is PostgreSQL {version}: version {OLDEST_SERVER} or newer is needed."
        )


def _require_utf8(connection: Connection) -> None:
    encoding = queries.statement(_SQL, "encoding").execute(connection, {}).scalar_one()
    if encoding != "UTF8":
        raise DatabaseNotReady(
            f"The database's encoding is {encoding}, in which not every name of a customer can be"
            " written. Make another one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            " (docs/operate.md). Nothing was changed."
        )


def _refuse_unknown(number: str | None) -> None:
    if number is not None and (why := no_way_from(number)):
        raise DatabaseNotReady(f"The database is at migration {number}: {why}")


def _refusal(error: DBAPIError) -> str:
    # One line: libpq adds what it guesses about it on the next.
    said, state = str(error.orig).strip().splitlines()[0], sqlstate(error)
    if not state or state.startswith(("08", "57P", "28", "3D")):
        return f"The database cannot be reached: {said}. Check PREPAID_DATABASE_URL."
    if state == FORBIDDEN:
        return (
            f"The database refused the migration: {said}. The user needs CREATE on the database and"
            " CREATEROLE (docs/operate.md). Nothing was changed."
        )
    if state in _NO_SUCH_EXTENSION:
        return (
            f"The server lacks an extension: {said}. Install PostgreSQL's contrib package"
            " (btree_gist). Nothing was changed."
        )
    return f"The migration failed: {said}. Nothing was changed."
