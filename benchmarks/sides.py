"""The two sides of the process benchmark: the pipeline and the plain SQL script.

Each takes a database with ended terms through the same day, job by job. What providers and people
do in between is the same for both, and is not measured.
"""

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline import context
from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import acting_as, transaction
from prepaid_pipeline.people import accounts
from prepaid_pipeline.process import steps
from prepaid_pipeline.teams import Team

AS_OF = date(2026, 6, 10)
CONTEXT = Context(as_of=AS_OF, grace_days=7, lead_days=7, actor="benchmark")
OFFICER = "benchmark_officer"
JOBS = ("open_renewals", "match_payments", "settle_renewals")
_PLAIN = {
    "open_renewals": "plain_open",
    "match_payments": "plain_match",
    "settle_renewals": "plain_settle",
}


def script(name: str) -> tuple[queries.Statement, ...]:
    """The statements of ``benchmarks/sql/<name>.sql``."""
    file = Path(__file__).parent / "sql" / f"{name}.sql"
    return queries.parse(name, file.read_text(encoding="utf-8"))


def prepare(engine: Engine, plans: int) -> None:
    """``plans`` due plans, and the person who will approve their payments."""
    accounts.add(engine, OFFICER, Team.FINANCE)
    with engine.begin() as connection:
        for statement in script("generate"):
            statement.execute(connection, {"plans": plans, "as_of": AS_OF})


def pipeline(engine: Engine, job: str) -> float:
    """Seconds of a job as a worker does it: batch after batch in one process."""

    def through() -> None:
        if job == "match_payments":
            payment_matching.match_payments(engine, CONTEXT)
            return
        if job == "open_renewals":
            steps.open_service_plans(engine, CONTEXT)
        for batch_id in steps.claim_all(engine, job, CONTEXT):
            steps.run_batch(engine, job, batch_id, CONTEXT)

    return _seconds(engine, job, through)


def plain(engine: Engine, job: str, plans: int) -> float:
    """Seconds of the same rows from hand-written SQL: ten thousand at a time, on one connection.

    Each statement commits, as in psql. In one transaction the script is slower: PostgreSQL checks
    all foreign keys of a row again when the transaction that inserted it updates it.
    """

    def by_hand() -> None:
        for first in range(1, plans + 1, context.BATCH_SIZE):
            ids = {"first": first, "last": min(first + context.BATCH_SIZE - 1, plans)}
            for statement in script(_PLAIN[job]):
                with transaction(engine, actor="benchmark", as_of=AS_OF) as connection:
                    statement.execute(connection, ids | {"as_of": AS_OF})

    return _seconds(engine, job, by_hand)


def _seconds(engine: Engine, job: str, work: Callable[[], None]) -> float:
    deliver, approve = script("people")
    if job == "match_payments":
        with engine.begin() as connection:
            deliver.execute(connection, {})
    if job == "settle_renewals":
        with acting_as(engine, OFFICER, AS_OF) as connection:
            approve.execute(connection, {})
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
