"""Two at the same moment: people against each other, people against the pipeline."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep
from typing import Any

import pytest
from sqlalchemy import text

from prepaid_pipeline.database.connections import acting_as
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.process import steps
from tests import budget
from tests.world import World, context

Person = Callable[[World, str], str]


def at_once(*things: Callable[[], Any]) -> list[Any]:
    """Run all at the same moment; what each returned or raised."""
    barrier = Barrier(len(things))

    def one(thing: Callable[[], Any]) -> Any:
        barrier.wait(timeout=10)
        try:
            return thing()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(one, things))


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    module_world.tax_rate("0.0725")
    return module_world


@pytest.fixture(scope="module")
def officers(world: World, person: Person) -> list[str]:
    return [person(world, "finance") for _ in range(2)]


def waiting(world: World, count: int = 1) -> list[int]:
    """New plans whose record has been matched and that wait for finance alone."""
    known = set(world.open())
    for _ in range(count):
        world.due_renewal()
    plans = [plan for plan in world.open() if plan not in known]
    for plan in plans:
        world.record(world.invoice(plan))
    world.match()
    return plans


def test_two_people_decide_the_same_task(world: World, officers: list[str]) -> None:
    for plan in waiting(world, 10):
        task = world.task(plan)
        assert at_once(
            lambda task=task: decisions.decide(world.engine, officers[0], [task], "approve", None),
            lambda task=task: decisions.decide(world.engine, officers[1], [task], "reject", "no"),
        ) == [1, 1]
        signed = world.rows(
            "SELECT decision, decided_by FROM prepaid.sign_offs WHERE task_id = :t"
            " ORDER BY sign_off_id",
            t=task,
        )
        assert sorted(signed) == [("approved", officers[0]), ("rejected", officers[1])]
        assert world.rows(
            "SELECT decision, decided_by FROM prepaid.tasks WHERE task_id = :t", t=task
        ) == [signed[-1]]
        rejected = signed[-1][0] == "rejected"
        assert world.holds(plan) == (["payment_rejected"] if rejected else [])


def test_two_people_decide_many_tasks_in_opposite_order(world: World, officers: list[str]) -> None:
    """Tasks are locked in one order whatever order they are named in: no deadlock."""
    tasks = [world.task(plan) for plan in waiting(world, 20)]
    for turn in range(budget.rounds(5)):
        ways = tasks, tasks[::-1]
        assert at_once(
            *(
                lambda name=name, way=way, turn=turn: decisions.decide(
                    world.engine, name, way, "approve", f"turn {turn}"
                )
                for name, way in zip(officers, ways, strict=True)
            )
        ) == [20, 20]


def test_settling_and_rejecting_at_once(world: World, officers: list[str]) -> None:
    """Paid and the rejection refused, or rejected and not paid; nothing between."""
    outcomes = set()
    for plan in waiting(world, budget.rounds(20)):
        world.approve(plan)
        task = world.task(plan)
        settled, rejected = at_once(
            world.settle,
            lambda task=task: decisions.decide(world.engine, officers[0], [task], "reject", "stop"),
        )
        assert settled is None
        paid, status = world.rows(
            "SELECT i.status = 'Paid', p.status FROM prepaid.service_plans p"
            " JOIN prepaid.invoices i USING (service_plan_id) WHERE p.service_plan_id = :p",
            p=plan,
        )[0]
        if paid:
            assert isinstance(rejected, NotAllowed)
            assert "is already Paid" in str(rejected)
            assert (status, world.holds(plan)) == ("Active", [])
        else:
            assert rejected == 1
            assert (status, world.holds(plan)) == ("Pending", ["payment_rejected"])
        outcomes.add(paid)
        # Whatever happened, a later approval gets the plan through.
        if not paid:
            decisions.decide(world.engine, officers[1], [task], "approve", None)
            world.settle()
            assert world.status(plan) == "Active"


def test_rejecting_many_while_they_are_settled(world: World, officers: list[str]) -> None:
    """One lock order for all: neither side ends in a deadlock."""
    for _ in range(budget.rounds(3)):
        plans = waiting(world, 10)
        world.approve(*plans)
        # The latest task first: against the order in which invoices are marked.
        tasks = [world.task(plan) for plan in reversed(plans)]
        settled, rejected = at_once(
            world.settle,
            lambda tasks=tasks: decisions.decide(
                world.engine, officers[0], tasks, "reject", "stop"
            ),
        )
        assert settled is None
        assert rejected == 10 or isinstance(rejected, NotAllowed)
        states = {world.status(plan) for plan in plans}
        assert states == ({"Pending"} if rejected == 10 else {"Active"})
        holds = {tuple(world.holds(plan)) for plan in plans}
        assert holds == ({("payment_rejected",)} if rejected == 10 else {()})


def wait_until_somebody_waits(world: World) -> None:
    """Until a session of this database waits for a lock."""
    for _ in range(500):
        if world.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ):
            return
        sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_rejection_that_commits_while_the_step_waits_for_it(
    world: World, officers: list[str]
) -> None:
    """The closest it can be: the step has seen the approval, the rejection holds the task."""
    (plan,) = waiting(world)
    world.approve(plan)
    # Once the rejection is being written, no claim takes the plan: it must be claimed before.
    batch = steps.claim(world.engine, "settle_renewals", context())
    assert batch is not None
    with ThreadPoolExecutor(1) as pool:
        with acting_as(world.engine, officers[0]) as connection:
            connection.execute(
                text("SELECT prepaid.decide_tasks(ARRAY[:t], 'rejected', 'stop')"),
                {"t": world.task(plan)},
            )
            settling = pool.submit(
                steps.run_batch, world.engine, "settle_renewals", batch, context()
            )
            wait_until_somebody_waits(world)
        settling.result(timeout=20)
    assert world.status(plan) == "Pending"
    assert world.holds(plan) == ["payment_rejected"]
    assert world.rows("SELECT status FROM prepaid.invoices WHERE service_plan_id = :p", p=plan) == [
        ("Open",)
    ]
    decisions.decide(world.engine, officers[1], [world.task(plan)], "approve", "after all")
    world.settle()
    assert world.status(plan) == "Active"


def test_two_close_quality_checks_at_once(world: World, person: Person) -> None:
    care = person(world, "customer_success")
    plans = waiting(world, 10)
    world.approve(*plans)
    world.settle()
    tasks = [world.task(plan, "quality_check") for plan in plans]
    decisions.decide(world.engine, care, tasks[:5], "approve", None)
    decisions.decide(world.engine, care, tasks[5:], "reject", "login fails")
    closed = at_once(*[lambda: steps.close_quality_checks(world.engine, context())] * 2)
    assert sum(c["passed"] for c in closed) == 5
    assert sum(c["failed"] for c in closed) == 5
    assert world.sql("SELECT count(*) FROM prepaid.tasks WHERE kind = 'quality_follow_up'") == 5


def test_the_same_person_is_added_twice_at_once(world: World) -> None:
    name = f"twin_{id(world)}"
    made = at_once(*[lambda: accounts.add(world.engine, name, "finance")] * 4)
    assert sorted(made) == [False, False, False, True]
