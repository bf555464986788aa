"""Invoices that nobody pays: reminders, and in the end the cancelled plan.

The days are counted from the day on which the invoice is due: the later of its issue and the
planned start of its term. Nothing is done while the payment is in our own hands (view
``prepaid.unpaid_invoices``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine

from prepaid_pipeline.billing.payment_matching import one_at_a_time
from prepaid_pipeline.context import UNLIMITED, Context, left_over, transaction
from prepaid_pipeline.database import queries

_SQL = "billing/dunning"
# Cancelling closes what hangs on each plan, a few milliseconds each, and no record is matched until
# it is committed.
_CANCELLED_AT_ONCE = 1000


@dataclass(frozen=True)
class SilentSource:
    """A provider from which nothing has come; ``last_on`` None: nothing has ever come from any."""

    provider: str | None
    last_on: date | None

    def __str__(self) -> str:
        if self.last_on is None:
            return "no bank file yet: no payment record has ever landed"
        return f"no bank file since {self.last_on} (provider {self.provider})"


def remind_unpaid(engine: Engine, context: Context) -> int:
    """Order at most one reminder per unpaid invoice, for the latest of ``reminder_days`` that has
    come; how many were ordered. Each day's reminder is ordered once, whoever asks how often. None
    while a source of payment records is silent.
    """
    ordered = 0
    while True:
        with _alone(engine, context) as connection:
            if silent(connection, context):
                return ordered
            remind = queries.statement(_SQL, "remind")
            count = remind.execute(connection, context.parameters()).rowcount
        if count == 0:
            return ordered
        ordered += count


def cancel_unpaid(engine: Engine, context: Context) -> int:
    """Cancel the plans whose last day to pay is over, and void their invoices; how many.

    A payment or a decision of finance that comes first wins; a record that comes later is parked.
    With ``payment_days`` None nothing is cancelled, nor while a source of payment records is
    silent.
    """
    cancelled = 0
    left = queries.statement(_SQL, "overdue_plans_left")
    params = context.parameters()
    params["limit"] = min(context.batch_size, _CANCELLED_AT_ONCE)
    # Once is enough: a source does not become silent by what lands meanwhile.
    if silent_sources(engine, context):
        return cancelled
    while True:
        found, count = _cancel(engine, context, params)
        if not found and not left_over(engine, context, left, params):
            return cancelled
        cancelled += count


def _cancel(engine: Engine, context: Context, params: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether there was anything overdue, and how many plans were cancelled."""
    with _alone(engine, context) as connection:
        locked = queries.statement(_SQL, "lock_overdue").execute(connection, params).one()
        if locked.number == 0:
            return False, 0
        asked = {**params, "plans": locked.plans}
        queries.statement(_SQL, "lock_verifications").execute(connection, asked)
        asked["plans"] = queries.statement(_SQL, "tell").execute(connection, asked).scalar_one()
        queries.statement(_SQL, "close").execute(connection, asked)
        return True, queries.statement(_SQL, "cancel").execute(connection, asked).rowcount


def would_dun(engine: Engine, context: Context) -> tuple[int, int]:
    """How many reminders would be ordered and how many plans cancelled; changes nothing."""
    with _alone(engine, context) as connection:
        reminded = cancelled = 0
        if not silent(connection, context):
            asked = context.parameters() | {"limit": UNLIMITED}
            reminded = queries.statement(_SQL, "remind").execute(connection, asked).rowcount
            overdue = queries.statement(_SQL, "lock_overdue").execute(connection, asked).one()
            cancelled = overdue.number
        connection.rollback()
    return reminded, cancelled


def silent_sources(engine: Engine, context: Context) -> list[SilentSource]:
    """The usual sources from which no record has landed in the last days before ``as_of``, as many
    as PREPAID_PAYMENTS_EXPECTED_DAYS says: nobody is reminded or cancelled until one has.
    """
    with engine.connect() as connection:
        return silent(connection, context)


def silent(connection: Connection, context: Context) -> list[SilentSource]:
    """As ``silent_sources``, in the connection's transaction."""
    if context.payments_expected_days is None:
        return []
    rows = queries.statement(_SQL, "silent_sources").execute(connection, context.parameters())
    return [SilentSource(row.provider, row.last_on) for row in rows]


@contextmanager
def _alone(engine: Engine, context: Context) -> Iterator[Connection]:
    """A transaction beside which no payment record is matched, and nobody else duns."""
    with transaction(engine, context) as connection:
        one_at_a_time(connection)
        yield connection
