"""Connections: which database, as whom, and what a transaction tells the audit log about itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from prepaid_pipeline.database import embedded, urls, waits
from prepaid_pipeline.database.moments import MomentLoader
from prepaid_pipeline.errors import DatabaseNotReady, NotAllowed, SettingError
from prepaid_pipeline.settings.load import Settings

# Compiling a statement takes the server two seconds where it expects many rows, as it does on
# tables that are not analysed yet; a small batch takes it milliseconds.
_SET_CONTEXT = text(
    "SELECT set_config('prepaid.actor', :actor, true),"
    " set_config('prepaid.run_id', :run_id, true), set_config('prepaid.as_of', :as_of, true),"
    " set_config('jit', 'off', true), set_config('lock_timeout', :patience, true)"
)
_CLOCK = text("SELECT clock_timestamp()")
# The SQLSTATE of what somebody has no right to (insufficient_privilege).
FORBIDDEN = "42501"
# Daily work begins ten minutes after midnight: a clock that is off by less gives the right day.
WRONG_DAY_SECONDS = 300.0


def url(settings: Settings) -> URL:
    """The database's URL without a driver; starts the embedded server where none is set.

    Raises SettingError for a URL that is not PostgreSQL's.
    """
    raw = settings.database_url or embedded.start(settings.home)
    try:
        parsed = make_url(raw)
    except ArgumentError:
        raise SettingError(
            "PREPAID_DATABASE_URL cannot be read: expected postgresql://user:password@host/database"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingError(
            f"PREPAID_DATABASE_URL is for {parsed.get_backend_name()}: expected postgresql://…"
        )
    return urls.normal(parsed).set(drivername="postgresql")


def engine(settings: Settings) -> Engine:
    """An engine on psycopg 3. Its sessions are in UTC; business dates are always parameters.

    Whoever keeps its sessions waiting for longer than PREPAID_BLOCKED_SECONDS is ended.
    """
    made = engine_for(url(settings))
    waits.watch(made, settings.blocked_seconds)
    return made


def engine_for(database: URL) -> Engine:
    """An engine on psycopg 3 for a URL in libpq's form; its sessions have what we rely on."""
    made = create_engine(
        database.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        # An error is logged and shown in Dagster: not with the customers' data of its statement.
        hide_parameters=True,
        connect_args={"application_name": "prepaid", "options": urls.options(database)},
    )
    event.listen(made, "connect", _read_all_moments)
    return made


def _read_all_moments(connection: Any, _record: object) -> None:
    connection.adapters.register_loader("timestamptz", MomentLoader)


@contextmanager
def transaction(
    engine: Engine,
    *,
    actor: str,
    run_id: str | None = None,
    as_of: date | None = None,
    patience: float | None = None,
) -> Iterator[Connection]:
    """A transaction whose audit entries carry ``actor``, ``run_id`` and the business date.

    ``patience``: seconds for which one statement waits for a lock, until SQLSTATE waits.LOCKED;
    None: until whoever has it is ended.
    """
    with engine.begin() as connection:
        connection.execute(
            _SET_CONTEXT,
            {
                "actor": actor,
                "run_id": run_id or "",
                "as_of": as_of.isoformat() if as_of else "",
                "patience": str(round(1000 * (patience or 0))),
            },
        )
        yield connection


@contextmanager
def acting_as(engine: Engine, person: str, as_of: date | None = None) -> Iterator[Connection]:
    """A transaction under a person's own role: what they may not do, the database refuses."""
    with transaction(engine, actor=person, as_of=as_of) as connection:
        quoted = connection.dialect.identifier_preparer.quote_identifier(person)
        connection.exec_driver_sql(f"SET LOCAL ROLE {quoted}")
        yield connection


@contextmanager
def notices(connection: Connection) -> Iterator[list[str]]:
    """What the database says while somebody acts (RAISE NOTICE), such as what else follows."""
    said: list[str] = []
    raw: Any = connection.connection.driver_connection

    def note(diagnostic: Any) -> None:
        said.append(diagnostic.message_primary)

    raw.add_notice_handler(note)
    try:
        yield said
    finally:
        raw.remove_notice_handler(note)


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of a database error, five characters; empty when the connection was lost."""
    original: Any = getattr(error, "orig", error)
    return getattr(original, "sqlstate", None) or ""


def refusal(error: DBAPIError) -> Exception:
    """A database error as one that the person can act on; others stay what they are."""
    state, reason = sqlstate(error), str(error.orig).splitlines()[0]
    if state.startswith("P0") or state == FORBIDDEN:
        return NotAllowed(reason)
    return error


def require_same_clock(engine: Engine, most_seconds: float = WRONG_DAY_SECONDS) -> None:
    """Refuse to work while this machine's clock and the database's differ by more.

    Business dates that nobody names are this machine's: with a wrong clock terms would be opened,
    expired and cancelled on other days than theirs. Raises DatabaseNotReady.
    """
    with engine.connect() as connection:
        connection.execute(_CLOCK)
        before = datetime.now(UTC)
        theirs = connection.execute(_CLOCK).scalar_one()
        after = datetime.now(UTC)
    skew = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    if skew > most_seconds:
        raise DatabaseNotReady(
            f"The database's clock and this machine's differ by {skew:.0f} s. Set both by NTP."
        )
