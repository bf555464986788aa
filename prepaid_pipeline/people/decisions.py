"""What people decide, under their own role: the database refuses what they may not do."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import FORBIDDEN, acting_as, notices, refusal, sqlstate
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.people import accounts

# What a person may do by their team's tasks alone (people/accounts, who_may).
ON_PAYMENTS, ON_QUALITY = "decide on payments", "decide on quality checks"

log = logging.getLogger(__name__)

_PAYMENT_WORDS = {"approve": "approved", "reject": "rejected"}
_QUALITY_WORDS = {"approve": "passed", "reject": "failed"}


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
    with acting(engine, person, ON_PAYMENTS if payments else ON_QUALITY, as_of) as connection:
        for chosen, decision in work:
            if chosen:
                params = {"tasks": chosen, "decision": decision, "note": note}
                result = queries.statement("people/tasks", "decide").execute(connection, params)
                recorded += result.scalar_one()
    return recorded


def reassign(
    engine: Engine, person: str, tasks: list[int], to: str | None, note: str | None
) -> int:
    """Hand open tasks to somebody of the same team, or (None) to all of it; how many changed hands.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person, "hand over tasks") as connection:
        params = {"tasks": tasks, "to": to, "note": note}
        return int(
            queries.statement("people/tasks", "reassign").execute(connection, params).scalar_one()
        )


def release(engine: Engine, person: str, plan: int, note: str, as_of: date | None = None) -> int:
    """Release all holds of a plan under a person's name; how many there were."""
    with acting(engine, person, "release holds", as_of) as connection:
        params = {"plan": plan, "note": note}
        released = queries.statement("people/holds", "release").execute(connection, params)
        return int(released.scalar_one())


def resend(engine: Engine, person: str, mails: list[int]) -> int:
    """Let failed and unknown mails be sent again under a person's name, all or nothing; how many.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person, "resend emails") as connection:
        resent = queries.statement("mail/undelivered", "resend").execute(
            connection, {"mails": mails}
        )
        return int(resent.scalar_one())


def settle_mails(engine: Engine, person: str, mails: list[int], note: str) -> int:
    """Say under a person's name that unknown mails have arrived, or that failed ones are not needed
    any more, all or nothing; how many.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person, "settle emails") as connection:
        params = {"mails": mails, "note": note}
        settled = queries.statement("mail/undelivered", "settle").execute(connection, params)
        return int(settled.scalar_one())


def correct_address(engine: Engine, person: str, mail: int, address: str) -> None:
    """Send a failed mail to another address under a person's name; the customer's changes too.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person, "change a customer's address") as connection:
        params = {"mail": mail, "address": address}
        queries.statement("mail/undelivered", "correct").execute(connection, params)


def assign(engine: Engine, person: str, record: int, invoice_number: str, note: str) -> None:
    """Say under a person's name which open invoice a parked record pays; matching judges it next.

    Raises NotAllowed in the database's own words.
    """
    with acting(engine, person, "assign payments") as connection:
        params = {"record": record, "invoice_number": invoice_number, "note": note}
        queries.statement("billing/payments", "assign").execute(connection, params)


@contextmanager
def acting(
    engine: Engine, person: str, what: str, as_of: date | None = None
) -> Iterator[Connection]:
    """A transaction under a person's role, on a business date (default: the database's today).

    ``what`` the person wants to do is said in the words of ``prepaid.teams``, or is ON_PAYMENTS or
    ON_QUALITY. Raises UnknownThing for a name that is nobody's, and NotAllowed for who is disabled
    or in another team, or in the database's own words.
    """
    accounts.require_enabled(engine, person)
    try:
        with acting_as(engine, person, as_of) as connection, notices(connection) as said:
            yield connection
    except DBAPIError as error:
        if sqlstate(error) != FORBIDDEN:
            raise refusal(error) from error
        raise _not_theirs(engine, person, what, error) from error
    for remark in said:
        logs.event(log, remark, logging.WARNING)


def _not_theirs(engine: Engine, person: str, what: str, error: DBAPIError) -> Exception:
    """The right that was missing, as what the person may not do and who may."""
    with engine.connect() as connection:
        asked = {"what": what, "person": person}
        found = queries.statement("people/accounts", "who_may").execute(connection, asked).one()
    if found.may:
        return refusal(error)
    return NotAllowed(f"{person} may not {what}: not in {' or '.join(found.teams)}")
