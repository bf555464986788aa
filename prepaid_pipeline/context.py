"""What a run is about: its business date, the window around it, who asks, and its transactions."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.database import connections, queries, waits
from prepaid_pipeline.database.connections import sqlstate
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.settings.renewals import (
    CLEARING_DAYS,
    PAYMENT_DAYS,
    PAYMENT_MAX_AGE_DAYS,
    REMINDER_DAYS,
)

log = logging.getLogger(__name__)

BATCH_SIZE = 10_000
# A step over a full batch takes seconds and renews the lease. A worker that is slower than this
# loses its plans to another one and then changes nothing: the lease saves work, the keys in the
# schema keep it right. Leases of runs that Dagster knows to have ended are not waited for.
LEASE_SECONDS = 1800
# For a statement whose effect is counted and rolled back: all at once.
UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Context:
    """What a run is about: the business date, the window around it, and who asks.

    All days are calendar days. ``reminder_days`` and ``payment_days`` (None: no limit) count from
    the day on which an invoice is due, ``clearing_days`` from that of a payment that is on its way;
    ``payment_max_age_days`` (None: no limit) count back from its issue, ``payments_expected_days``
    (None: not looked at) from ``as_of``. ``actor`` and ``run_id`` are for the audit log.
    """

    as_of: date
    grace_days: int
    lead_days: int
    actor: str = "pipeline"
    run_id: str | None = None
    batch_size: int = BATCH_SIZE
    lease_seconds: int = LEASE_SECONDS
    reminder_days: tuple[int, ...] = REMINDER_DAYS
    payment_days: int | None = PAYMENT_DAYS
    clearing_days: int = CLEARING_DAYS
    payment_max_age_days: int | None = PAYMENT_MAX_AGE_DAYS
    payments_expected_days: int | None = None

    @classmethod
    def of(cls, settings: Settings, as_of: date | None = None, **other: Any) -> "Context":
        """The context of one business date (default today) under the installation's settings."""
        days = {
            "reminder_days": settings.reminder_days,
            "payment_days": settings.payment_days,
            "clearing_days": settings.clearing_days,
            "payment_max_age_days": settings.payment_max_age_days,
            "payments_expected_days": settings.payments_expected_days,
        }
        return cls(
            as_of or settings.today(), settings.grace_days, settings.lead_days, **days | other
        )

    def parameters(self) -> dict[str, Any]:
        """The named parameters that every script shares."""
        return {
            "as_of": self.as_of,
            "grace_days": self.grace_days,
            "lead_days": self.lead_days,
            "limit": self.batch_size,
            "lease_seconds": self.lease_seconds,
            "run_id": self.run_id,
            "reminder_days": list(self.reminder_days),
            "payment_days": self.payment_days,
            "clearing_days": self.clearing_days,
            "payment_max_age_days": self.payment_max_age_days,
            "payments_expected_days": self.payments_expected_days,
        }


def transaction(
    engine: Engine, context: Context, patience: float | None = None
) -> AbstractContextManager[Connection]:
    """A transaction whose audit entries carry the context's actor, run and business date.

    ``patience``: seconds to wait for a lock, see ``connections.transaction``.
    """
    return connections.transaction(
        engine,
        actor=context.actor,
        run_id=context.run_id,
        as_of=context.as_of,
        patience=patience,
    )


def is_locked(error: DBAPIError) -> bool:
    """Whether a statement failed because others kept a lock for longer than its patience."""
    return sqlstate(error) == waits.LOCKED


def left_over(
    engine: Engine, context: Context, statement: queries.Statement, params: Mapping[str, Any]
) -> bool:
    """Whether there is work that was passed over because others had locked it, and can be had now.

    ``statement`` counts the first of it, and waits for its lock. What somebody keeps for longer is
    left to the next run, and a log says whose session it is, which is ended if that goes on.
    """
    if not waits.others_write(engine):
        return False  # what other workers have locked, they do
    try:
        with transaction(engine, context, waits.PATIENCE_SECONDS) as connection:
            return bool(statement.execute(connection, params).scalar_one())
    except DBAPIError as error:
        if not is_locked(error):
            raise
    say_passed_over(engine, context, what=statement.name)
    return False


def say_passed_over(engine: Engine, context: Context, **fields: Any) -> None:
    """Log that work was passed over, and the server processes of the sessions that kept it."""
    pids = ", ".join(str(blocker.pid) for blocker in waits.blockers(engine))
    about = {"job": context.actor, "run_id": context.run_id, "blocked_by": pids or None}
    logs.event(log, "work passed over", logging.WARNING, **fields, **about)
