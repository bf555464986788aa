"""Invoices for finance: the list of what is open, voiding and reissuing."""

from datetime import date
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.people.decisions import acting

_SQL = "billing/invoices"


def listed(engine: Engine, as_of: date, status: str | None = "Open") -> list[dict[str, Any]]:
    """Invoices of a status (None: all), the earliest due date first.

    Amounts are Decimals with tax; ``due_on`` is the later of issue and term start, ``days_overdue``
    counts from it to ``as_of`` (None unless the invoice is open).
    """
    with engine.connect() as connection:
        found = queries.statement(_SQL, "list").execute(
            connection, {"as_of": as_of, "status": status}
        )
        return [dict(row._mapping) for row in found]


def void(
    engine: Engine,
    person: str,
    number: str,
    note: str,
    *,
    reissue: bool = False,
    as_of: date | None = None,
) -> int:
    """Void an open invoice under a finance officer's name; its number stays given. Its plan's id.

    The plan goes back to before step 1: with ``reissue`` the next run issues a new invoice, without
    it the plan is held. A plan that is over stays as it is: its invoice is not collectible. Raises
    NotAllowed in the database's own words.
    """
    params = {"number": number, "reissue": reissue, "note": note}
    with acting(engine, person, "void invoices", as_of) as connection:
        plan = queries.statement(_SQL, "void").execute(connection, params).scalar_one()
    return int(plan)
