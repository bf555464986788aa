"""What customers ask for between two renewals: to leave, or another plan; under a person's name."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.people.decisions import acting

_SQL = "billing/subscriptions"


@dataclass(frozen=True)
class Named:
    """What a name stands for: a subscription, or one plan (``plan`` is its id) of it."""

    subscription: int
    plan: int | None


@dataclass(frozen=True)
class Ending:
    """What cancelling did to one plan.

    ``outcome``: it "ends" (at the end of its term), "ended" (cut on ``ends_on``) or "never begins".
    Amounts are in ``currency`` with tax: the credit note's total and what is to be refunded.
    """

    service_plan_id: int
    outcome: str
    ends_on: date | None
    credit_note_number: str | None
    currency: str
    credited: Decimal | None
    refund: Decimal | None


@dataclass(frozen=True)
class Cancelled:
    """``leaves_on`` is the subscription's cancelled_on; None if it stays (a change was undone)."""

    subscription_ref: str
    leaves_on: date | None
    plans: list[Ending]


@dataclass(frozen=True)
class Change:
    """What is asked for. ``price``: own net price for one unit and term; None is the list price.

    ``addons``: the codes to have from now on, None keeps those that there are. ``on``: a day inside
    the running term, None is the next renewal.
    """

    plan_code: str
    price: Decimal | None = None
    addons: list[str] | None = None
    on: date | None = None


@dataclass(frozen=True)
class Waiting:
    """A plan that waits: the one a change opened, or the renewal that was open when it came.

    ``retrieved``: its details are taken already, so that only a new invoice takes the change.
    """

    service_plan_id: int
    kind: str
    planned_start: date
    end_date: date
    plan_code: str
    retrieved: bool
    invoice_number: str | None


def find(engine: Engine, name: str) -> Named:
    """The subscription (by its reference) or plan (by its id or an invoice's number) of a name.

    "subscription:NAME" and "plan:NAME" say which one is meant. Raises UnknownThing when there is
    none, or when the name could be either.
    """
    kind, colon, rest = name.partition(":")
    wanted = {kind} if colon and kind in ("subscription", "plan") else {"subscription", "plan"}
    with engine.connect() as connection:
        asked = {"name": rest if len(wanted) == 1 else name}
        rows = queries.statement(_SQL, "named").execute(connection, asked).all()
    found = [row for row in rows if row.what in wanted]
    if not found:
        raise UnknownThing(f"there is no subscription or service plan {name}, and no such invoice")
    if len(found) > 1:
        raise UnknownThing(
            f"{name} is both a subscription and a service plan: write subscription:{name}"
            f" or plan:{name}"
        )
    return Named(found[0].subscription_id, found[0].service_plan_id)


def cancel(
    engine: Engine,
    person: str,
    named: Named,
    note: str,
    *,
    at_once: bool = False,
    on: date | None = None,
    as_of: date | None = None,
) -> Cancelled:
    """Cancel a subscription, or a plan, at the end of its term or at once (``on``: default today).

    Raises NotAllowed in the database's own words: who may not, and what cannot be cancelled.
    """
    params = {
        "subscription": named.subscription,
        "plan": named.plan,
        "at_once": at_once,
        "on_date": on,
        "note": note,
    }
    with acting(engine, person, "cancel plans", as_of) as connection:
        rows = queries.statement(_SQL, "cancel").execute(connection, params)
        plans = [Ending(**row._mapping) for row in rows]
    with engine.connect() as connection:
        now = queries.statement(_SQL, "leaves").execute(connection, params).one()
    return Cancelled(now.subscription_ref, now.cancelled_on, plans)


def change(
    engine: Engine,
    person: str,
    named: Named,
    asked: Change,
    note: str,
    *,
    as_of: date | None = None,
) -> Waiting | None:
    """Change a subscription's plan; the plan that waits with it, if there is one.

    Raises NotAllowed in the database's own words.
    """
    params = {
        "subscription": named.subscription,
        "plan_code": asked.plan_code,
        "price": asked.price,
        "addons": asked.addons,
        "on_date": asked.on,
        "note": note,
    }
    with acting(engine, person, "change plans", as_of) as connection:
        plan = queries.statement(_SQL, "change").execute(connection, params).scalar_one()
    if plan is None:
        return None
    with engine.connect() as connection:
        found = queries.statement(_SQL, "waiting").execute(connection, {"plan": plan}).one()
    return Waiting(**found._mapping)
