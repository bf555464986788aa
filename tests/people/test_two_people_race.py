"""Four people approve the same 300 payments at once, eight times: always two of them, never one."""

import random
from collections.abc import Callable

import pytest

from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from tests import budget
from tests.people.test_races import at_once
from tests.world import World, context

TASKS, DECIDERS = 300, 4
TIMES = budget.rounds(8)


@pytest.fixture
def tasks(limited: World) -> list[int]:
    customer, plan = limited.customer(), limited.plan()
    limited.sql(
        "INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on,"
        " anchor_date, auto_renew) SELECT 'race' || n, :c, :p, DATE '2026-11-02',"
        " DATE '2026-11-02', true FROM generate_series(1, :n) n",
        c=customer,
        p=plan,
        n=TASKS,
    )
    limited.open()
    limited.sql(
        "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,"
        " status, occurred_at) SELECT 'bank', invoice_number, invoice_number, payable, currency,"
        " 'Success', '2026-11-02T10:00:00Z' FROM prepaid.invoices"
    )
    limited.match()
    return [row[0] for row in limited.rows("SELECT task_id FROM prepaid.tasks ORDER BY 1")]


def approve_all(world: World, name: str, tasks: list[int], seed: int) -> int:
    """In handfuls, in an order of one's own; how many approvals were recorded."""
    chance = random.Random(seed)
    order = chance.sample(tasks, len(tasks))
    recorded = 0
    while order:
        size = chance.randint(1, 40)
        chosen, order = order[:size], order[size:]
        recorded += decisions.decide(world.engine, name, chosen, "approve", None)
    return recorded


def test_four_people_race(
    limited: World, tasks: list[int], person: Callable[[World, str], str]
) -> None:
    people_ = [person(limited, "finance") for _ in range(DECIDERS)]
    assert len(tasks) == TASKS
    for turn in range(TIMES):
        recorded = at_once(
            *(
                lambda name=name, n=n, turn=turn: approve_all(limited, name, tasks, turn * 10 + n)
                for n, name in enumerate(people_)
            )
        )
        assert sum(recorded) == 2 * TASKS
        assert limited.rows(
            "SELECT count(*), count(*) FILTER (WHERE status = 'Done' AND decision = 'approved'"
            " AND first_approved_by <> decided_by) FROM prepaid.tasks"
        ) == [(TASKS, TASKS)]
        assert limited.rows(
            "SELECT signed, people, count(*) FROM (SELECT count(*) AS signed,"
            " count(DISTINCT decided_by) AS people FROM prepaid.sign_offs GROUP BY task_id) t"
            " GROUP BY 1, 2"
        ) == [(2, 2, TASKS)]
        found = [f for check in invariants.run(limited.engine, context()) for f in check.findings]
        assert found == []
        # All over again: the same invoices, nobody has decided.
        with limited.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE prepaid.sign_offs DISABLE TRIGGER USER")
            connection.exec_driver_sql("TRUNCATE prepaid.sign_offs")
            connection.exec_driver_sql("ALTER TABLE prepaid.sign_offs ENABLE TRIGGER USER")
            connection.exec_driver_sql(
                "ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER sign_offs_append_only"
            )
            connection.exec_driver_sql(
                "UPDATE prepaid.tasks SET status = 'Open', decision = NULL, decided_by = NULL,"
                " decided_at = NULL, first_approved_by = NULL, first_approved_at = NULL"
            )
