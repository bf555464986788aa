"""What a run is about: its business date, the window around it, who asks, and its transactions."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine

from prepaid_pipeline.database import connections
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.settings.renewals import PAYMENT_DAYS, REMINDER_DAYS

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
    the day on which an invoice is due; ``payments_expected_days`` (None: not looked at) back from
    ``as_of``. ``actor`` and ``run_id`` are for the audit log.
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
    payments_expected_days: int | None = None

    @classmethod
    def of(cls, settings: Settings, as_of: date | None = None, **other: Any) -> "Context":
        """The context of one business date (default today) under the installation's settings."""
        days = {
            "reminder_days": settings.reminder_days,
            "payment_days": settings.payment_days,
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
            "payments_expected_days": self.payments_expected_days,
        }


def transaction(engine: Engine, context: Context) -> AbstractContextManager[Connection]:
    """A transaction whose audit entries carry the context's actor, run and business date."""
    return connections.transaction(
        engine, actor=context.actor, run_id=context.run_id, as_of=context.as_of
    )
