"""People: each is a database role in a team, so that who decided comes from the database."""

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import refusal, sqlstate, transaction
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.teams import TEAMS

# The role of the sign-off pages' own login.
DESK = "desk"
_NAME_LIMIT = 63  # PostgreSQL's NAMEDATALEN - 1, in bytes
# Two commands made the same role, or put it into the same team, at the same moment.
_MADE_MEANWHILE = ("42710", "23505", "XX000")


def add(engine: Engine, name: str, team: str, email: str | None = None) -> bool:
    """Make a person's role (NOLOGIN) and put it into a team; False if it was in that team already.

    ``email`` (RFC 5322 addr-spec) is where reminders of overdue tasks go; None leaves it as it was.
    Raises NotAllowed for a name that is reserved, too long, not printable, a superuser's or the
    pipeline's own, and in the database's own words if its user may not make roles.
    """
    if name in (*TEAMS, DESK) or name.startswith("pg_") or name in ("none", "public", ""):
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
    params = {"name": name, "team": team, "email": email}
    with transaction(engine, actor="prepaid user add") as connection:
        quote = connection.dialect.identifier_preparer.quote_identifier
        known = queries.statement("people/accounts", "role").execute(connection, params).first()
        if known is not None and (known.rolsuper or known.is_own):
            owner = "a database superuser" if known.rolsuper else "the pipeline's own user"
            raise NotAllowed(f"{name!r} is {owner} and cannot be a person in a team")
        if known is not None and known.in_team:
            queries.statement("people/accounts", "account").execute(connection, params)
            return False
        if known is None:
            connection.exec_driver_sql(f"CREATE ROLE {quote(name)} NOLOGIN")
            # The command line decides as this person: it may take the role, not inherit from it.
            inherit = " WITH INHERIT FALSE" if _version(connection) >= 160000 else ""
            connection.exec_driver_sql(f"GRANT {quote(name)} TO CURRENT_USER{inherit}")
            connection.exec_driver_sql(f"GRANT {quote(name)} TO {DESK}{inherit}")
        connection.exec_driver_sql(f"GRANT {quote(team)} TO {quote(name)}")
        queries.statement("people/accounts", "account").execute(connection, params)
        queries.statement("people/accounts", "note_added").execute(connection, params)
    return True


def set_disabled(engine: Engine, name: str, disabled: bool) -> None:
    """Take a person's sign-in and decisions away, or give them back; what they decided stays.

    Raises UnknownThing for a name that is in no team.
    """
    with transaction(engine, actor="prepaid user") as connection:
        params = {"name": name, "teams": list(TEAMS), "disabled": disabled}
        if (
            not queries.statement("people/accounts", "is_person")
            .execute(connection, params)
            .scalar_one()
        ):
            raise UnknownThing(f"there is no person {name!r}")
        queries.statement("people/accounts", "set_disabled").execute(connection, params)


def require_person(engine: Engine, name: str) -> None:
    """Raise UnknownThing for a name that is in no team."""
    with engine.connect() as connection:
        params = {"name": name, "teams": list(TEAMS)}
        if (
            not queries.statement("people/accounts", "is_person")
            .execute(connection, params)
            .scalar_one()
        ):
            raise UnknownThing(
                f"there is no person {name!r}: add them with 'prepaid user add {name} --team …'"
            )


def set_password(engine: Engine, name: str, password_hash: str) -> None:
    """Store the hash of a person's password for the sign-off pages; their sessions end."""
    with transaction(engine, actor="prepaid user") as connection:
        params = {"name": name, "password_hash": password_hash}
        queries.statement("people/accounts", "set_password").execute(connection, params)


def sign_out(engine: Engine, name: str) -> int:
    """End a person's sessions at the sign-off pages; how many there were."""
    with transaction(engine, actor="prepaid user") as connection:
        ended = queries.statement("people/accounts", "sign_out").execute(connection, {"name": name})
        return int(ended.scalar_one())


def let_desk_act(engine: Engine) -> None:
    """Let the sign-off pages act for the people who were added before there were pages."""
    with transaction(engine, actor="prepaid migrate") as connection:
        queries.statement("people/accounts", "accounts_for_all").execute(connection, {})
        quote = connection.dialect.identifier_preparer.quote_identifier
        inherit = " WITH INHERIT FALSE" if _version(connection) >= 160000 else ""
        known = queries.statement("people/accounts", "beyond_the_desk").execute(connection, {})
        for name in known.scalars().all():
            connection.exec_driver_sql(f"GRANT {quote(name)} TO {DESK}{inherit}")


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
