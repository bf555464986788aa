"""Exactly once: steps run twice, workers side by side or thought dead; the end is the same."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import URL

from prepaid_pipeline.context import Context
from prepaid_pipeline.database import connections
from prepaid_pipeline.process import steps
from tests.conftest import fresh_database
from tests.world import World, context

PLANS = 7


def make_due(world: World) -> World:
    """Renewals and a purchase, one of them held for its missing e-mail."""
    world.tax_rate("0.0725")
    for n in range(PLANS):
        world.due_renewal(email=None if n == 3 else "someone@example.com")
    addon = world.addon("3.33")
    world.subscription(world.customer(), world.plan(), addons=(addon,))
    return world


@pytest.fixture(scope="module", autouse=True)
def officer_is_known(cluster: URL) -> None:
    """A person's role belongs to the server: only the database that makes it first logs it."""
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        World(engine).officer()
        engine.dispose()


@pytest.fixture
def due(world: World) -> World:
    return make_due(world)


def finish(world: World) -> dict[str, list[str]]:
    """Everything that is ready, to its end."""
    invoiced = [plan for plan in world.open() if not world.holds(plan)]
    unpaid = [plan for plan in invoiced if world.status(plan) == "Pending"]
    if unpaid and not world.sql("SELECT count(*) FROM prepaid.transactions"):
        world.pay_and_approve(*unpaid)
    world.settle()
    return world.dump()


@pytest.fixture
def undisturbed(module_world: World) -> dict[str, list[str]]:
    """The end of a run that nothing disturbs, made once."""
    if not module_world.sql("SELECT count(*) FROM prepaid.service_plans"):
        make_due(module_world)
        finish(module_world)
    return module_world.dump()


@pytest.mark.parametrize("step", steps.STEPS)
def test_every_step_run_twice_changes_nothing_more(
    due: World, step: str, undisturbed: dict[str, list[str]]
) -> None:
    at = context()
    queue = "settle_renewals" if step in steps.SETTLING_STEPS else "open_renewals"
    if queue == "settle_renewals":
        due.pay_and_approve(*(plan for plan in due.open() if not due.holds(plan)))
    steps.open_service_plans(due.engine, at)
    (batch,) = steps.claim_all(due.engine, queue, at)
    for name in steps.QUEUES[queue]:
        steps.run_step(due.engine, name, batch, at)
        if name == step:
            before = due.dump()
            steps.run_step(due.engine, name, batch, at)
            assert due.dump() == before
    assert finish(due) == undisturbed


def test_two_workers_at_once_end_as_one(due: World, undisturbed: dict[str, list[str]]) -> None:
    _side_by_side(lambda at: due.open(at))
    due.pay_and_approve(*(plan for plan in due.open() if not due.holds(plan)))
    _side_by_side(lambda at: due.settle(at))
    assert _without_numbers(due.dump()) == _without_numbers(undisturbed)
    assert due.rows("SELECT last_number FROM prepaid.invoice_series") == [(PLANS,)]


def _side_by_side(work: Callable[[Context], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(context(batch_size=2))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _without_numbers(dump: dict[str, list[str]]) -> dict[str, int]:
    """Two workers may number the invoices in another order: compare how many rows there are."""
    return {table: len(rows) for table, rows in dump.items()}


def test_a_worker_thought_dead_changes_nothing(due: World) -> None:
    at = context()
    steps.open_service_plans(due.engine, at)
    slow = steps.claim(due.engine, "open_renewals", at)
    assert slow is not None
    due.sql("UPDATE prepaid.batches SET leased_until = clock_timestamp()")
    other = steps.claim(due.engine, "open_renewals", at)
    assert other is not None
    steps.run_batch(due.engine, "open_renewals", other, at)
    before = due.dump()
    results = steps.run_batch(due.engine, "open_renewals", slow, at)
    assert all(result.taken == 0 for result in results)
    assert due.dump() == before


def test_charges_are_made_anew_when_the_run_goes_on_the_next_day(due: World) -> None:
    due.tax_rate("0.5", valid_from="2026-11-03")
    at = context()
    steps.open_service_plans(due.engine, at)
    (batch,) = steps.claim_all(due.engine, "open_renewals", at)
    for step in list(steps.OPENING_STEPS)[:3]:
        steps.run_step(due.engine, step, batch, at)
    due.sql("UPDATE prepaid.batches SET leased_until = clock_timestamp()")
    due.open(context(at.as_of + timedelta(days=1)))
    assert due.rows(
        "SELECT DISTINCT tax_rate, issued_on FROM prepaid.invoices"
        " JOIN prepaid.invoice_lines USING (invoice_id)"
    ) == [(due.sql("SELECT 0.5"), at.as_of + timedelta(days=1))]
