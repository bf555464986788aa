"""Whom the database lets in: its people, each by an entry of their own, and the desk's login."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import FORBIDDEN, sqlstate, transaction

# The role of the sign-off pages' own login.
DESK = "desk"
_SQL = "people/entry"


def one_at_a_time(connection: Connection) -> None:
    """Let the next one who makes, disables or lets in somebody wait until this transaction ends."""
    queries.statement(_SQL, "lock").execute(connection, {})


def let_people_in(engine: Engine) -> list[str] | None:
    """Close the database to everybody but its people, and let each of them in.

    The pages can act for all of them afterwards, those included who were added before there were
    pages. Returns who is let in beside them, because of rights of their own, if the database was
    open until now; None: it is still open, as only its owner can close it.
    """
    with transaction(engine, actor="prepaid migrate") as connection:
        one_at_a_time(connection)
        queries.statement(_SQL, "accounts_for_all").execute(connection, {})
        let_us_act(connection, None)
        queries.statement(_SQL, "let_everybody_in").execute(connection, {})
        kept = queries.statement(_SQL, "close_to_the_public").execute(connection, {}).scalar_one()
    return None if kept is None else list(kept)


def how_to_close(engine: Engine) -> str:
    """What is to be done about a database that everybody may connect to."""
    open_to_all = "Every role of this server may connect to the database, as PostgreSQL has it."
    with engine.connect() as connection:
        if queries.statement(_SQL, "may_close").execute(connection, {}).scalar_one():
            return f"{open_to_all} 'prepaid migrate' closes it."
        quote = connection.dialect.identifier_preparer.quote_identifier
    database, own = quote(engine.url.database or ""), quote(engine.url.username or "")
    return (
        f"{open_to_all} As the database's owner: GRANT CONNECT ON DATABASE {database} TO {own}"
        f" WITH GRANT OPTION; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;"
        " then run 'prepaid migrate' again."
    )


def strangers(engine: Engine) -> list[tuple[str, str]]:
    """Who is in teams on this server but was not put into them here, with these teams."""
    with engine.connect() as connection:
        return [
            (row.name, row.teams)
            for row in queries.statement(_SQL, "strangers").execute(connection, {})
        ]


def let_us_act(connection: Connection, names: Sequence[str] | None) -> None:
    """Let the command line and the desk act as people: take their role, not inherit from it.

    Of roles that somebody else made only an administrator can (``advice_on``).
    """
    quote = connection.dialect.identifier_preparer.quote_identifier
    inherit = " WITH INHERIT FALSE" if _version(connection) >= 160000 else ""
    named = {"names": None if names is None else list(names)}
    for row in queries.statement(_SQL, "beyond_us").execute(connection, named).all():
        for whom, is_missing in (("CURRENT_USER", row.own), (DESK, row.desk)):
            if is_missing:
                _try(connection, f"GRANT {quote(row.name)} TO {whom}{inherit}")


def _try(connection: Connection, grant: str) -> None:
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(grant)
    except DBAPIError as error:
        if sqlstate(error) != FORBIDDEN:
            raise


def advice_on(engine: Engine, names: Sequence[str]) -> list[str]:
    """What an administrator has to do, so that the command line and the desk can act for people.

    Empty where they can: a role that somebody else made is theirs to give, on PostgreSQL 16 and up.
    """
    with engine.connect() as connection:
        quote = connection.dialect.identifier_preparer.quote_identifier
        beyond = (
            queries.statement(_SQL, "beyond_us").execute(connection, {"names": list(names)}).all()
        )
    own = quote(engine.url.username or "")
    return [
        f"Another user made the role {row.name}, so that the command line and the desk cannot act"
        f" for {row.name} yet. As an administrator: GRANT {quote(row.name)} TO {own}, {DESK};"
        for row in beyond
    ]


def end_sessions(engine: Engine, name: str) -> list[str]:
    """End the sessions that a disabled person has open with SQL tools, in this database.

    Called after the commit by which they have no entry any more: nobody comes in in between.
    Returns what to do about those that this user may not end.
    """
    with engine.connect() as connection:
        asked = {"name": name}
        sessions = queries.statement(_SQL, "open_sessions").execute(connection, asked).all()
    return [
        f"A session of {row.login} is still open, which this user may not end: it reads nothing"
        " from its next transaction on. As an administrator:"
        f" SELECT pg_terminate_backend({row.pid});"
        for row in sessions
        if not any(_end_session(engine, row.pid, row.login, whom) for whom in ("NONE", row.login))
    ]


def _end_session(engine: Engine, pid: int, login: str, whom: str) -> bool:
    """By our own right (pg_signal_backend), or as the login: its own sessions anybody may end."""
    try:
        with engine.begin() as connection:
            quoted = connection.dialect.identifier_preparer.quote_identifier(whom)
            connection.exec_driver_sql(f"SET LOCAL ROLE {whom if whom == 'NONE' else quoted}")
            queries.statement(_SQL, "end_session").execute(connection, {"pid": pid, "login": login})
    except DBAPIError as error:
        if sqlstate(error) != FORBIDDEN:
            raise
        return False
    return True


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
