"""Three weeks of November 2026 at a company with 300 customers, through all 13 steps.

Nothing here is a shortcut: files are imported, records arrive in ``transactions``, people decide
through the functions that the sign-off tables use, and the pipeline drains what is ready.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.language.english import count
from prepaid_pipeline.operations import installation
from prepaid_pipeline.operations.service import lock
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.process.drain import drain
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.teams import Team

SAMPLE = Path(__file__).parent / "sample"
DAYS = tuple(date(2026, 11, day) for day in (1, 3, 6, 9, 12, 16, 20))
FINANCE, CUSTOMER_SUCCESS = "demo_finance", "demo_customer_success"
# Whoever releases a plan's hold does not decide on its payment.
FINANCE_LEAD = "demo_finance_lead"
_CLEARED_UP = "cleared up with the customer"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How many plans the pipeline opened ended in which way."""

    outcome: str
    plans: int


def start_clean(settings: Settings) -> None:
    """Make an empty, migrated database that is marked as the demo's.

    Raises NotAllowed when the database holds data that is not the demo's, or when a daemon works
    on it.
    """
    engine = connections.engine(settings)
    try:
        if (by := lock.holder(engine)) is not None:
            raise NotAllowed(
                f"The demo starts again, but 'prepaid up' is running ({by}): stop it first."
            )
        if _ask(engine, "is_demo"):
            _do(engine, "forget")
        installation.migrate(engine, settings)
        if not _ask(engine, "is_empty"):
            raise NotAllowed(
                "The database holds data that is not the demo's, so the demo leaves it alone."
                " Set PREPAID_HOME or PREPAID_DATABASE_URL to another place for it."
            )
        _do(engine, "mark")
    finally:
        engine.dispose()


def play(engine: Engine, settings: Settings, say: Say) -> None:
    """Import the sample and let the days pass. Mails are files, whatever PREPAID_SMTP_URL says."""
    settings = settings.model_copy(update={"smtp_url": None})
    reports = import_directory(engine, SAMPLE, as_of=DAYS[0], grace_days=settings.grace_days)
    say(f"imported {count(sum(report.rows for report in reports))} rows of {len(reports)} files")
    accounts.add(engine, FINANCE, Team.FINANCE)
    accounts.add(engine, FINANCE_LEAD, Team.FINANCE)
    accounts.add(engine, CUSTOMER_SUCCESS, Team.CUSTOMER_SUCCESS)
    for as_of in DAYS:
        context = Context.of(settings, as_of, actor="prepaid demo")
        opened = drain(engine, settings, context)
        _deliver_records(engine, context)
        matched = drain(engine, settings, context)
        decided = _decide(engine, context)
        settled = drain(engine, settings, context)
        reminded = sum(done.reminded for done in (opened, matched, settled))
        say(
            f"{as_of}: {count(opened.opened)} opened, {count(opened.invoiced)} invoiced,"
            f" {count(matched.records.get('matched', 0))} payments matched,"
            f" {count(decided)} decisions, {count(settled.settled)} activated,"
            f" {count(settled.mails_sent - settled.reminded)} confirmations sent,"
            f" {count(reminded)} reminded"
        )


def outcomes(engine: Engine) -> list[Outcome]:
    """The number of plans that the pipeline opened, by their outcome."""
    with engine.connect() as connection:
        rows = queries.statement("operations/demo/state", "outcomes").execute(connection, {})
        return [Outcome(row.outcome, row.plans) for row in rows]


def mrr(engine: Engine) -> list[dict[str, Any]]:
    """MRR and active plans per currency in the demo's last month, rounded to the currency."""
    with engine.connect() as connection:
        params = {"month": DAYS[-1].replace(day=1)}
        rows = queries.statement("operations/demo/state", "mrr").execute(connection, params)
        return [dict(row._mapping) for row in rows]


def _deliver_records(engine: Engine, context: Context) -> None:
    with engine.begin() as connection:
        deliver = queries.statement("operations/demo/day", "deliver_records")
        deliver.execute(connection, {"as_of": context.as_of})


def _decide(engine: Engine, context: Context) -> int:
    """Finance rejects two doubtful payments and approves the rest; her lead clears up an earlier
    one.
    """
    as_of = context.as_of
    for row in _day(engine, "rejected", context):
        decisions.release(engine, FINANCE_LEAD, row.service_plan_id, _CLEARED_UP, as_of)
    doubted = [row.task_id for row in _day(engine, "doubted", context)]
    decided = 0
    if doubted:
        reason = "The account holder's name is not the customer's"
        decided += decisions.decide(engine, FINANCE, doubted, "reject", reason, as_of)
    with decisions.acting(engine, FINANCE, decisions.ON_PAYMENTS, as_of) as connection:
        rows = queries.statement("people/tasks", "agreeing").execute(connection, {})
        agreeing = [row.task_id for row in rows]
    if agreeing:
        decided += decisions.decide(engine, FINANCE, agreeing, "approve", None, as_of)
    checks = list(_day(engine, "quality", context))
    passing = [row.task_id for row in checks if row.passes]
    failing = [row.task_id for row in checks if not row.passes]
    if passing:
        decided += decisions.decide(engine, CUSTOMER_SUCCESS, passing, "approve", None, as_of)
    if failing:
        reason = "The streaming login is refused"
        decided += decisions.decide(engine, CUSTOMER_SUCCESS, failing, "reject", reason, as_of)
    return decided


def _day(engine: Engine, part: str, context: Context) -> list[Any]:
    with engine.connect() as connection:
        statement = queries.statement("operations/demo/day", part)
        return list(statement.execute(connection, {"as_of": context.as_of}))


def _ask(engine: Engine, part: str) -> bool:
    with engine.connect() as connection:
        return bool(
            queries.statement("operations/demo/state", part).execute(connection, {}).scalar_one()
        )


def _do(engine: Engine, part: str) -> None:
    with engine.begin() as connection:
        queries.statement("operations/demo/state", part).execute(connection, {})
