"""People: each is a database role in a team, so that who decided comes from the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import refusal, sqlstate, transaction
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.people import entry
from prepaid_pipeline.teams import TEAMS

_SQL = "people/accounts"
_NAME_LIMIT = 63  # PostgreSQL's NAMEDATALEN - 1, in bytes
# Two commands made the same role, or put it into the same team, at the same moment.
_MADE_MEANWHILE = ("42710", "23505", "XX000")
# Who somebody is here (people/accounts, standing), of whom there is an account.
_PEOPLE = ("person", "disabled")


def add(engine: Engine, name: str, team: str, email: str | None = None) -> bool:
    """Make a person's role (NOLOGIN) and put it into a team; False if it was in that team already.

    ``email`` (RFC 5322 addr-spec) is where reminders of overdue tasks go; None leaves it as it was.
    Raises NotAllowed for a name that is reserved, too long, not printable, a superuser's or the
    pipeline's own, and in the database's own words if its user may not make roles.
    """
    if name in (*TEAMS, entry.DESK) or name.startswith("pg_") or name in ("none", "public", ""):
        raise NotAllowed(f"{name!r} cannot be a person's name: it is reserved")
    if not name.isprintable() or name != name.strip():
        raise NotAllowed(f"{name!r} cannot be a person's name: blank at an end, or not printable")
    if len(name.encode()) > _NAME_LIMIT:
        raise NotAllowed(f"{name!r} is too long: at most {_NAME_LIMIT} bytes")
    if email is not None:
        email = _address(email)
    try:
        return _add(engine, name, team, email)
    except DBAPIError as error:
        if sqlstate(error) not in _MADE_MEANWHILE:
            raise refusal(error) from error
    return _add(engine, name, team, email)


def _address(email: str) -> str:
    # Takes 20 ms to load, which every other command of people would wait for.
    from prepaid_pipeline.addresses import recipient_address  # noqa: PLC0415

    try:
        return recipient_address(email, None).addr_spec
    except ValueError as error:
        raise NotAllowed(str(error)) from error


def _add(engine: Engine, name: str, team: str, email: str | None) -> bool:
    params = {"name": name, "team": team, "email": email, "teams": [team]}
    with transaction(engine, actor="prepaid user add") as connection:
        entry.one_at_a_time(connection)
        quote = connection.dialect.identifier_preparer.quote_identifier
        known = queries.statement(_SQL, "role").execute(connection, params).first()
        if known is not None:
            _refuse_no_person(name, known)
        else:
            connection.exec_driver_sql(f"CREATE ROLE {quote(name)} NOLOGIN")
        if known is None or not known.in_team:
            connection.exec_driver_sql(f"GRANT {quote(team)} TO {quote(name)}")
        queries.statement(_SQL, "account").execute(connection, params)
        entry.let_us_act(connection, [name])
        queries.statement(_SQL, "let_in").execute(connection, params)
        if known is not None and known.in_team and known.put_there:
            return False
        queries.statement(_SQL, "note").execute(connection, params | {"event": "user_added"})
    return True


def adopt(engine: Engine, names: Sequence[str]) -> None:
    """Let people who are in teams on this server be people of this database too; all or nothing.

    Raises UnknownThing for a name that is in no team, and NotAllowed for one that is no person's.
    """
    with transaction(engine, actor="prepaid user adopt") as connection:
        entry.one_at_a_time(connection)
        for name in names:
            found = _standing(connection, name)
            if found is None or found.standing == "nobody":
                raise UnknownThing(
                    f"{name!r} is in no team on this server: add them with"
                    f" 'prepaid user add {name} --team …'"
                )
            if found.standing == "own":
                raise NotAllowed(f"{name!r} is the pipeline's own user and no person")
            params = {"name": name, "email": None, "teams": found.teams}
            queries.statement(_SQL, "account").execute(connection, params)
            queries.statement(_SQL, "let_in").execute(connection, params)
            queries.statement(_SQL, "note").execute(connection, params | {"event": "user_adopted"})
        entry.let_us_act(connection, names)


def set_disabled(engine: Engine, name: str, disabled: bool) -> list[str]:
    """Take a person's sign-in, decisions and reading away, or give them back; what they decided
    stays. Sessions that they have open with SQL tools are ended.

    Returns what to do about sessions that this user may not end.
    Raises UnknownThing for a name that is in no team.
    """
    with transaction(engine, actor="prepaid user") as connection:
        _person(connection, name)
        queries.statement(_SQL, "set_disabled").execute(
            connection, {"name": name, "disabled": disabled}
        )
    return entry.end_sessions(engine, name) if disabled else []


def require_person(engine: Engine, name: str) -> None:
    """Raise UnknownThing for a name that is nobody's here; a disabled person is somebody."""
    with engine.connect() as connection:
        _person(connection, name)


def require_enabled(engine: Engine, name: str) -> None:
    """Raise UnknownThing for a name that is nobody's here, NotAllowed for who is disabled or whose
    role we cannot take.
    """
    with engine.connect() as connection:
        found = _person(connection, name)
    if found.standing == "disabled":
        raise NotAllowed(f"{name} is disabled: 'prepaid user enable {name}' undoes that")
    if not found.may_be_taken:
        raise NotAllowed(" ".join(entry.advice_on(engine, [name])))


def _person(connection: Connection, name: str) -> Row[Any]:
    found = _standing(connection, name)
    if found is not None and found.standing in _PEOPLE:
        return found
    if found is not None and found.standing == "stranger":
        raise UnknownThing(
            f"{name!r} is in {' and '.join(found.teams)} on this server, but is no person of this"
            f" database: confirm them with 'prepaid user adopt {name}'"
        )
    raise UnknownThing(
        f"there is no person {name!r}: add them with 'prepaid user add {name} --team …'"
    )


def _standing(connection: Connection, name: str) -> Row[Any] | None:
    asked = {"name": name, "teams": list(TEAMS)}
    return queries.statement(_SQL, "standing").execute(connection, asked).one_or_none()


def _refuse_no_person(name: str, known: Row[Any]) -> None:
    if known.rolsuper or known.is_own:
        owner = "a database superuser" if known.rolsuper else "the pipeline's own user"
        raise NotAllowed(f"{name!r} is {owner} and cannot be a person in a team")


def set_password(engine: Engine, name: str, password_hash: str) -> None:
    """Store the hash of a person's password for the sign-off pages; their sessions end."""
    with transaction(engine, actor="prepaid user") as connection:
        queries.statement(_SQL, "set_password").execute(
            connection, {"name": name, "password_hash": password_hash}
        )


def sign_out(engine: Engine, name: str) -> int:
    """End a person's sessions at the sign-off pages; how many there were."""
    with transaction(engine, actor="prepaid user") as connection:
        return int(
            queries.statement(_SQL, "sign_out").execute(connection, {"name": name}).scalar_one()
        )
