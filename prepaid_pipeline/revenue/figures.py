"""Step 12 without Dagster: stage a range of months, publish what was validated.

What each figure means: ``docs/revenue.md``. How it is computed: ``sql/steps/12_…``, whose files run
in the order of their numbers; of ``STAGES`` only the first scans the terms. File 0, which removes
staged rows, runs a second time at the very end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import UnknownThing

_CLEAN = "steps/12_monthly_recurring_revenue/0_clean_staging"
# Each reads what earlier ones have staged or left in temporary tables.
STAGES = (
    "steps/12_monthly_recurring_revenue/1_read_terms",
    "steps/12_monthly_recurring_revenue/2_mrr",
    "steps/12_monthly_recurring_revenue/3_renewal_outcomes",
    "steps/12_monthly_recurring_revenue/4_retention",
    "steps/12_monthly_recurring_revenue/5_deferred_revenue",
    "steps/12_monthly_recurring_revenue/6_reconciliation",
)
_FINGERPRINT = "steps/12_monthly_recurring_revenue/7_fingerprint"
_KEEP_LATER = "steps/12_monthly_recurring_revenue/8_keep_later"
_PUBLISH = "steps/12_monthly_recurring_revenue/9_publish"

_LONG_DAYS = 7 * 31


@dataclass(frozen=True)
class Span:
    """Months from ``first_month`` to ``last_month`` (their first days, both included), seen from
    the business date ``as_of``. A month that has not begun has no figures.
    """

    first_month: date
    last_month: date
    as_of: date

    def __post_init__(self) -> None:
        if self.first_month > self.last_month:
            raise UnknownThing(f"{self} is not a range: the first month is after the last one")
        if self.last_month > self.as_of:
            raise UnknownThing(
                f"{self.last_month:%Y-%m} has not begun on {self.as_of}: choose an earlier month"
                " or a later business date"
            )

    def __str__(self) -> str:
        return f"{self.first_month:%Y-%m} to {self.last_month:%Y-%m}"

    @property
    def is_long(self) -> bool:
        """Whether it pays to start ahead what takes seconds to start."""
        return (self.last_month - self.first_month).days > _LONG_DAYS

    @property
    def until(self) -> date:
        """The day on which the last month is measured: its last day, or ``as_of`` if earlier."""
        return min(self.as_of, last_day(self.last_month))

    def months(self) -> list[date]:
        """The first day of each month, in order."""
        months = [self.first_month]
        while months[-1] < self.last_month:
            months.append(next_month(months[-1]))
        return months


@dataclass(frozen=True)
class Kept:
    """A month that a run left alone: its figures are as of a later date than the run's."""

    month: date
    as_of: date
    asked: date

    def __str__(self) -> str:
        return (
            f"{self.month:%Y-%m} keeps its figures as of {self.as_of}: those as of {self.asked}"
            " know less. Use --replay (prepaid backfill) to replace them anyway."
        )


def next_month(day: date) -> date:
    """The first day of the month after ``day``."""
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def last_day(month: date) -> date:
    """The last day of a month."""
    return next_month(month) - timedelta(days=1)


def closes_on(month: date, grace_days: int) -> date:
    """The first day on which the month's figures are final: until its last day + grace days, a
    renewal that starts in it can still be paid in time.
    """
    return last_day(month) + timedelta(days=grace_days + 1)


def first_open_month(as_of: date, grace_days: int) -> date:
    """The earliest month that is not closed yet on ``as_of``."""
    return (as_of - timedelta(days=grace_days)).replace(day=1)


@contextmanager
def one_at_a_time(engine: Engine) -> Iterator[None]:
    """Wait until no other run computes monthly figures, and keep others waiting meanwhile."""
    with engine.begin() as connection:
        queries.statement("revenue/one_at_a_time").execute(connection, {})
        yield


def stage(engine: Engine, span: Span, run_id: str) -> None:
    """Compute all figures of the span into the staging tables, from one snapshot of the terms."""
    with engine.begin() as connection:
        clean_staging(connection, run_id)
    isolated = engine.execution_options(isolation_level="REPEATABLE READ")
    with isolated.begin() as connection:
        compute(connection, span, run_id)
        queries.statement(_FINGERPRINT).execute(connection, _parameters(span, run_id))


def compute(connection: Connection, span: Span, run_id: str) -> None:
    """The figures in the caller's transaction, once: it should see one snapshot all the time, and
    what was read of the terms stays in temporary tables until its end.
    """
    params = _parameters(span, run_id)
    for script in STAGES:
        queries.run(connection, script, params)


def _parameters(span: Span, run_id: str) -> dict[str, object]:
    return {
        "run_id": run_id,
        "first_month": span.first_month,
        "last_month": span.last_month,
        "as_of": span.as_of,
        "until": span.until,
    }


def publish(engine: Engine, run_id: str, *, replay: bool = False) -> list[Kept]:
    """Replace the published months by the staged ones, in one transaction.

    A month that was published as of a later date stays as it is and is returned, except in a
    ``replay``.
    """
    params = {"run_id": run_id, "replay": replay}
    with engine.begin() as connection:
        later = queries.statement(_KEEP_LATER).execute(connection, params)
        kept = [Kept(row.month, row.as_of, row.asked) for row in later]
        queries.run(connection, _PUBLISH, params)
        clean_staging(connection, run_id)
    return sorted(kept, key=lambda month: month.month)


def clean_staging(connection: Connection, run_id: str) -> None:
    """Remove this run's staged rows, and what failed runs left more than a week ago."""
    queries.run(connection, _CLEAN, {"run_id": run_id})
