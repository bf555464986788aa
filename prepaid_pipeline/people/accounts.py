"""People: each is a database role in a team, so that who decided comes from the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import acting_as, sqlstate, transaction
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.mail.render import recipient_address

TEAMS = ("finance", "customer_success", "leadership", "engineering")
# The role of the sign-off pages' own login.
DESK = "desk"
_NAME_LIMIT = 63  # PostgreSQL's NAMEDATALEN - 1, in bytes
# Two commands made the same role, or put it into the same team, at the same moment.
_MADE_MEANWHILE = ("42710", "23505", "XX000")
_PAYMENT_WORDS = {"approve": "approved", "reject": "rejected"}
_QUALITY_WORDS = {"approve": "passed", "reject": "failed"}


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


def reassign(
    engine: Engine, person: str, tasks: list[int], to: str | None, note: str | None
) -> int:
    """Hand open tasks to somebody of the same team, or (None) to all of it; how many changed hands.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person) as connection:
        params = {"tasks": tasks, "to": to, "note": note}
        return int(
            queries.statement("people/tasks", "reassign").execute(connection, params).scalar_one()
        )


def let_desk_act(engine: Engine) -> None:
    """Let the sign-off pages act for the people who were added before there were pages."""
    with transaction(engine, actor="prepaid migrate") as connection:
        queries.statement("people/accounts", "accounts_for_all").execute(connection, {})
        quote = connection.dialect.identifier_preparer.quote_identifier
        inherit = " WITH INHERIT FALSE" if _version(connection) >= 160000 else ""
        known = queries.statement("people/accounts", "beyond_the_desk").execute(connection, {})
        for name in known.scalars().all():
            connection.exec_driver_sql(f"GRANT {quote(name)} TO {DESK}{inherit}")


def decide(
    engine: Engine,
    person: str,
    tasks: list[int],
    word: str,
    note: str | None,
    as_of: date | None = None,
) -> int:
    """Approve or reject tasks under a person's name, all or nothing; how many were recorded.

    ``as_of`` is the business date of a replay (default: the day on which it is done). For quality
    tasks approve means passed and reject means failed. Raises NotAllowed in the
    database's own words.
    """
    with engine.connect() as connection:
        rows = queries.statement("people/tasks", "kinds").execute(connection, {"tasks": tasks})
        kinds = {row.task_id: row.kind for row in rows}
    if missing := [task for task in tasks if task not in kinds]:
        raise UnknownThing(f"there is no task {missing[0]}")
    recorded = 0
    quality = [task for task in tasks if kinds[task].startswith("quality")]
    payments = [task for task in tasks if not kinds[task].startswith("quality")]
    work = [(payments, _PAYMENT_WORDS[word]), (quality, _QUALITY_WORDS[word])]
    with acting(engine, person, as_of) as connection:
        for chosen, decision in work:
            if chosen:
                params = {"tasks": chosen, "decision": decision, "note": note}
                result = queries.statement("people/tasks", "decide").execute(connection, params)
                recorded += result.scalar_one()
    return recorded


def release(engine: Engine, person: str, plan: int, note: str, as_of: date | None = None) -> int:
    """Release all holds of a plan under a person's name; how many there were."""
    with acting(engine, person, as_of) as connection:
        params = {"plan": plan, "note": note}
        released = queries.statement("people/holds", "release").execute(connection, params)
        return int(released.scalar_one())


def resend(engine: Engine, person: str, mails: list[int]) -> int:
    """Let failed and unknown mails be sent again under a person's name, all or nothing; how many.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person) as connection:
        resent = queries.statement("mail/undelivered", "resend").execute(
            connection, {"mails": mails}
        )
        return int(resent.scalar_one())


def settle_mails(engine: Engine, person: str, mails: list[int], note: str) -> int:
    """Say under a person's name that unknown mails have arrived, or that failed ones are not needed
    any more, all or nothing; how many.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person) as connection:
        params = {"mails": mails, "note": note}
        settled = queries.statement("mail/undelivered", "settle").execute(connection, params)
        return int(settled.scalar_one())


def correct_address(engine: Engine, person: str, mail: int, address: str) -> None:
    """Send a failed mail to another address under a person's name; the customer's changes too.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person) as connection:
        params = {"mail": mail, "address": address}
        queries.statement("mail/undelivered", "correct").execute(connection, params)


def assign(engine: Engine, person: str, record: int, invoice_number: str, note: str) -> None:
    """Say under a person's name which open invoice a parked record pays; matching judges it next.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person) as connection:
        params = {"record": record, "invoice_number": invoice_number, "note": note}
        queries.statement("billing/payments", "assign").execute(connection, params)


@contextmanager
def acting(engine: Engine, person: str, as_of: date | None = None) -> Iterator[Connection]:
    """A transaction under a person's role, on a business date (default: the database's today).

    Raises UnknownThing for a name that is nobody's, and NotAllowed in the database's own words.
    """
    with engine.connect() as connection:
        asked = {"name": person, "teams": list(TEAMS)}
        known = queries.statement("people/accounts", "is_person").execute(connection, asked)
        if not known.scalar_one():
            raise UnknownThing(
                f"there is no person {person!r}: add them with 'prepaid user add {person} --team …'"
            )
    try:
        with acting_as(engine, person, as_of) as connection:
            yield connection
    except DBAPIError as error:
        raise refusal(error) from error


def refusal(error: DBAPIError) -> Exception:
    """A database error as one that the person can act on; others stay what they are."""
    state, reason = sqlstate(error), str(error.orig).splitlines()[0]
    if state.startswith("P0") or state == "42501":
        return NotAllowed(reason)
    return error


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
