"""The two sides of the process benchmark: the pipeline and the plain SQL script.

Each takes a database with ended terms through the same day and says how long its parts took, in
seconds. The people's part in between is the same for both, and is not measured.
"""

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline import people, process, queries
from prepaid_pipeline.database import acting_as, transaction
from prepaid_pipeline.process import Context

AS_OF = date(2026, 6, 10)
CONTEXT = Context(as_of=AS_OF, grace_days=7, lead_days=7, actor="benchmark")
OFFICER = "benchmark_officer"
Seconds = dict[str, float]


def script(name: str) -> tuple[queries.Statement, ...]:
    """The statements of ``benchmarks/sql/<name>.sql``."""
    file = Path(__file__).parent / "sql" / f"{name}.sql"
    return queries.parse(name, file.read_text(encoding="utf-8"))


def prepare(engine: Engine, plans: int) -> None:
    """``plans`` due plans, and the person who will approve their payments."""
    people.add(engine, OFFICER, "finance")
    with engine.begin() as connection:
        for statement in script("generate"):
            statement.execute(connection, {"plans": plans, "as_of": AS_OF})


def pipeline(engine: Engine) -> Seconds:
    """The jobs as a worker does them: batch after batch in one process."""

    def through(queue: str) -> None:
        for batch_id in process.claim_all(engine, queue, CONTEXT):
            process.run_batch(engine, queue, batch_id, CONTEXT)

    def open_renewals() -> None:
        process.open_service_plans(engine, CONTEXT)
        through("open_renewals")

    opening = _seconds(open_renewals)
    _providers_deliver(engine)
    matching = _seconds(lambda: process.match_payments(engine, CONTEXT))
    _finance_approves(engine)
    settling = _seconds(lambda: through("settle_renewals"))
    return {"open_renewals": opening, "match_payments": matching, "settle_renewals": settling}


def plain(engine: Engine, plans: int) -> Seconds:
    """The same rows from hand-written SQL: ten thousand at a time, on one connection.

    Each statement commits, as in psql. In one transaction the script is slower: PostgreSQL checks
    all foreign keys of a row again when the transaction that inserted it updates it.
    """

    def run(name: str) -> None:
        for first in range(1, plans + 1, process.BATCH_SIZE):
            ids = {"first": first, "last": min(first + process.BATCH_SIZE - 1, plans)}
            for statement in script(name):
                with transaction(engine, actor="benchmark", as_of=AS_OF) as connection:
                    statement.execute(connection, ids | {"as_of": AS_OF})

    opening = _seconds(lambda: run("plain_open"))
    _providers_deliver(engine)
    matching = _seconds(lambda: run("plain_match"))
    _finance_approves(engine)
    settling = _seconds(lambda: run("plain_settle"))
    return {"open_renewals": opening, "match_payments": matching, "settle_renewals": settling}


def _providers_deliver(engine: Engine) -> None:
    deliver, _ = script("people")
    with engine.begin() as connection:
        deliver.execute(connection, {})


def _finance_approves(engine: Engine) -> None:
    _, approve = script("people")
    with acting_as(engine, OFFICER, AS_OF) as connection:
        approve.execute(connection, {})


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
