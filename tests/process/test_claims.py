"""A claim whose look at the tables is older than another worker's work takes nothing of it."""

import threading
import time

import pytest
from sqlalchemy import text

from prepaid_pipeline.database import queries
from prepaid_pipeline.process import steps
from tests.world import World, context

LOCK = 815
STALE = 999_999


def claim_late(world: World, queue: str, claimed: list[int]) -> None:
    """The claim itself, with a wait between its snapshot and its row locks."""
    sql = queries.statement("process/batches/claim", queue).clause.text
    wait = f"WITH wait AS MATERIALIZED (SELECT pg_advisory_xact_lock({LOCK})), due AS ("
    sql = sql.replace("WITH due AS (", wait).replace(
        "FROM prepaid.unsettled_plans u", "FROM wait CROSS JOIN prepaid.unsettled_plans u", 1
    )
    at = {"as_of": context().as_of, "lead_days": 7, "limit": 10, "batch_id": STALE}
    with world.engine.begin() as connection:
        clause = text(sql)
        asked = {name: at[name] for name in clause.compile().params}
        claimed.append(connection.execute(clause, asked).rowcount)


@pytest.mark.parametrize("queue", ["open_renewals", "settle_renewals"])
def test_a_claim_that_looked_too_early_takes_nothing(world: World, queue: str) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    steps.open_service_plans(world.engine, context())
    if queue == "settle_renewals":
        world.pay_and_approve(*world.open())
    claimed: list[int] = []
    late = threading.Thread(target=claim_late, args=(world, queue, claimed))
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE objid = :lock AND NOT granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with world.engine.begin() as gate:
        gate.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        late.start()
        while late.is_alive() and not world.sql(waiting, lock=LOCK):
            time.sleep(0.01)
        for batch_id in steps.claim_all(world.engine, queue, context()):
            steps.run_batch(world.engine, queue, batch_id, context())
    late.join(timeout=30)
    assert claimed == [0]
    assert (
        world.sql("SELECT count(*) FROM prepaid.unsettled_plans WHERE batch_id = :b", b=STALE) == 0
    )
