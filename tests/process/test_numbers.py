"""Document numbers: gapless per series and year, whoever asks at once, whatever is undone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from sqlalchemy import Connection, text

from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.world import World, context

NEXT = text("SELECT prepaid.next_document_number(:series, :day)")


def next_number(world: World, series: str, day: date) -> str:
    number: str = world.sql(
        "SELECT prepaid.next_document_number(:series, :day)", series=series, day=day
    )
    return number


def test_each_series_and_year_has_numbers_of_its_own(world: World) -> None:
    asked = [
        ("CN", date(2026, 12, 31)),
        ("CN", date(2027, 1, 1)),
        ("INV", date(2026, 5, 1)),
        ("CN", date(2026, 1, 1)),
    ]
    assert [next_number(world, *each) for each in asked] == [
        "CN-2026-000001",
        "CN-2027-000001",
        "INV-2026-000001",
        "CN-2026-000002",
    ]


@pytest.mark.parametrize("ends", ["rollback", "close"])
def test_a_number_that_was_not_used_is_given_again(world: World, ends: str) -> None:
    day = date(2026, 11, 2)
    assert next_number(world, "CN", day) == "CN-2026-000001"
    connection = world.engine.connect()
    lost = connection.execute(NEXT, {"series": "CN", "day": day}).scalar_one()
    getattr(connection, ends)()
    assert next_number(world, "CN", day) == lost == "CN-2026-000002"
    connection.close()


def test_twenty_at_once_get_twenty_numbers(world: World) -> None:
    def issue(_: int) -> list[str]:
        return [next_number(world, "CN", date(2026, 11, 2)) for _ in range(5)]

    with ThreadPoolExecutor(20) as threads:
        numbers = [number for found in threads.map(issue, range(20)) for number in found]
    assert sorted(numbers) == [f"CN-2026-{n:06}" for n in range(1, 101)]


YEARS = (date(2026, 12, 31), date(2027, 1, 1))


@pytest.fixture
def charged(world: World) -> list[list[int]]:
    """Plans that wait for their invoices, 90 on each side of New Year: ids per business date."""
    world.tax_rate("0.07")
    world.sql(
        "INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on,"
        " anchor_date, auto_renew) SELECT 'N' || n, :customer, :plan, :day, :day, true"
        " FROM generate_series(1, 180) n",
        customer=world.customer(),
        plan=world.plan(),
        day=YEARS[0],
    )
    steps.open_service_plans(world.engine, context(YEARS[0]))
    plans = world.plans()
    halves = [plans[:90], plans[90:]]
    scripts = list(steps.OPENING_STEPS.values())[:3]
    for half, day in zip(halves, YEARS, strict=True):
        with world.engine.begin() as connection:
            for statement in (s for script in scripts for s in queries.script(script)):
                statement.execute(connection, {"plans": half, "as_of": day})
    return halves


def invoice(connection: Connection, plans: list[int], day: date) -> None:
    for statement in queries.script("steps/04_create_invoices"):
        statement.execute(connection, {"plans": plans, "as_of": day})


def numbers(world: World) -> list[str]:
    query = "SELECT invoice_number FROM prepaid.invoices ORDER BY 1"
    return [number for (number,) in world.rows(query)]


def test_twenty_issuers_leave_no_gap_and_no_number_twice(
    world: World, charged: list[list[int]]
) -> None:
    """Each takes three plans at a time in a transaction of its own; every second is undone once."""
    batches = [
        (half[start : start + 3], day)
        for start in range(0, 90, 3)
        for half, day in zip(charged, YEARS, strict=True)
    ]

    def issue(worker: int) -> None:
        engine = connections.engine_for(world.engine.url)
        for number, (plans, day) in enumerate(batches[worker::20]):
            with engine.connect() as connection:
                if (worker + number) % 2:
                    invoice(connection, plans, day)
                    connection.rollback()
                invoice(connection, plans, day)
                connection.commit()
        engine.dispose()

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(issue, range(20)))
    assert numbers(world) == [f"INV-{day.year}-{n:06}" for day in YEARS for n in range(1, 91)]
    counters = "SELECT year, last_number FROM prepaid.invoice_series ORDER BY 1"
    assert world.rows(counters) == [(2026, 90), (2027, 90)]
    once = "SELECT count(DISTINCT service_plan_id), count(*) FROM prepaid.invoices"
    assert world.rows(once) == [(180, 180)]


def test_a_void_invoice_keeps_its_number(world: World, charged: list[list[int]]) -> None:
    plans, day = charged[0][:3], YEARS[0]
    with world.engine.begin() as connection:
        invoice(connection, plans, day)
    world.sql("UPDATE prepaid.invoices SET status = 'Void' WHERE service_plan_id = :p", p=plans[1])
    with world.engine.begin() as connection:
        invoice(connection, plans, day)
    query = "SELECT invoice_number, service_plan_id, status FROM prepaid.invoices ORDER BY 1"
    assert world.rows(query) == [
        ("INV-2026-000001", plans[0], "Open"),
        ("INV-2026-000002", plans[1], "Void"),
        ("INV-2026-000003", plans[2], "Open"),
        ("INV-2026-000004", plans[1], "Open"),
    ]
    found = {result.name: result.findings for result in invariants.run(world.engine, context(day))}
    assert found["03_invoice_numbers_are_gapless"] == []
    assert found["02_invoice_lines_add_up"] == []
