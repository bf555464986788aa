"""Deciding, in the sign-off tables and through the command line: what is taken and refused."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.people import decisions
from tests.people.conftest import logged_in_as, sql_as
from tests.world import World

Person = Callable[[World, str], str]
DECIDE = "UPDATE prepaid.payment_verifications SET decision = :d, note = :n WHERE task_id = :t"
STATE = "SELECT status, decision, note, decided_by FROM prepaid.tasks WHERE task_id = :t"


@pytest.fixture
def plan(world: World) -> int:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    return plan


@pytest.fixture
def officer(world: World, person: Person) -> str:
    return person(world, "finance")


def test_who_decided_is_the_role(world: World, plan: int, officer: str, person: Person) -> None:
    """Whether by SET ROLE or in a session of one's own; nothing that the person says changes it."""
    task = world.task(plan)
    forged = "SELECT set_config('prepaid.actor', 'the boss', true)"
    assert sql_as(world, officer, DECIDE, t=task, d="approved", n=None) == 1
    assert world.rows(STATE, t=task) == [("Done", "approved", None, officer)]

    other = person(world, "finance")
    with logged_in_as(world, other) as execute:
        execute(forged)
        execute(DECIDE, t=task, d="rejected", n="not on the statement")
    assert world.rows(STATE, t=task) == [("Done", "rejected", "not on the statement", other)]
    assert world.rows("SELECT decided_by, decision FROM prepaid.sign_offs ORDER BY 1 = 1") == [
        (officer, "approved"),
        (other, "rejected"),
    ]
    assert world.rows(
        "SELECT actor FROM prepaid.audit_log WHERE event IN ('task_decided', 'hold_placed')"
        " ORDER BY audit_id"
    ) == [(officer,), (other,), (other,)]


def test_nobody_takes_another_persons_role(world: World, officer: str, person: Person) -> None:
    other = person(world, "finance")
    with (
        pytest.raises(DBAPIError, match="permission denied to set role"),
        logged_in_as(world, officer) as execute,
    ):
        execute(f'SET ROLE "{other}"')


def test_only_decision_and_note_can_be_set(world: World, plan: int) -> None:
    """Also by the database's owner, whom the grants do not stop."""
    update = "UPDATE prepaid.payment_verifications SET decision = 'approved', "
    for other in ("total = 0", "decided_by = 'boss'", "status = 'Done'"):
        with pytest.raises(DBAPIError, match="only decision and note can be set in payment_verif"):
            world.sql(update + other)
    assert world.rows(STATE, t=world.task(plan)) == [("Open", None, None, None)]


def test_a_withdrawn_task(world: World, plan: int, officer: str) -> None:
    first = world.task(plan)
    decisions.decide(world.engine, officer, [first], "reject", "blocked account")
    decisions.release(world.engine, officer, plan, "unblocked")
    with pytest.raises(NotAllowed, match=f"task {first} cannot be decided: it was withdrawn; look"):
        decisions.decide(world.engine, officer, [first], "approve", None)
    # The sign-off table does not even show it.
    assert sql_as(world, officer, DECIDE, t=first, d="approved", n=None) == 0
    assert world.task(plan) != first


def test_a_task_that_does_not_exist(world: World, plan: int, officer: str) -> None:
    with pytest.raises(UnknownThing, match="there is no task 4711"):
        decisions.decide(world.engine, officer, [world.task(plan), 4711], "approve", None)
    with pytest.raises(UnknownThing, match="there is no task 92233720368547758080"):
        decisions.decide(world.engine, officer, [2**63 * 10], "approve", None)
    assert sql_as(world, officer, DECIDE, t=4711, d="approved", n=None) == 0
    assert world.rows(STATE, t=world.task(plan)) == [("Open", None, None, None)]


def test_the_wrong_team_is_told_so(world: World, plan: int, person: Person) -> None:
    care = person(world, "customer_success")
    task = world.task(plan)
    with pytest.raises(NotAllowed, match=f"it belongs to finance, and {care} is not in that team"):
        decisions.decide(world.engine, care, [task], "approve", None)
    leader = person(world, "leadership")
    with pytest.raises(NotAllowed, match=f"^{leader} may not decide on payments: not in finance$"):
        decisions.decide(world.engine, leader, [task], "approve", None)
    assert world.rows(STATE, t=task) == [("Open", None, None, None)]


def test_many_tasks_in_one_statement(world: World, officer: str) -> None:
    world.tax_rate("0.0725")
    for _ in range(4):
        world.due_renewal()
    plans = world.open()
    for plan, amount in zip(plans, (None, None, "1.00", None), strict=True):
        world.record(world.invoice(plan), amount)
    world.match()
    assert (
        sql_as(
            world,
            officer,
            "UPDATE prepaid.payment_verifications SET decision = 'approved' WHERE agrees",
        )
        == 3
    )
    assert world.rows(
        "SELECT decision, decided_by, count(*) FROM prepaid.sign_offs GROUP BY 1, 2"
    ) == [("approved", officer, 3)]
    assert world.rows(
        "SELECT service_plan_id, difference FROM prepaid.payment_verifications"
        " WHERE status = 'Open'"
    ) == [(plans[2], "the record says 1.00, the invoice 10.73")]
    # The same again is no second decision.
    decisions.decide(world.engine, officer, [world.task(plans[0])], "approve", None)
    assert world.sql("SELECT count(*) FROM prepaid.sign_offs") == 3
    world.settle()
    assert [world.status(plan) for plan in plans] == ["Active", "Active", "Pending", "Active"]


def test_all_or_nothing(world: World, officer: str) -> None:
    """One bad task among many: none is decided."""
    world.tax_rate("0.0725")
    world.due_renewal()
    world.due_renewal()
    first, second = world.open()
    world.pay_and_approve(first)
    world.settle()
    tasks = [world.task(first), world.task(second)]
    with pytest.raises(NotAllowed, match="invoice INV-2026-000001 is already Paid"):
        decisions.decide(world.engine, officer, tasks, "approve", None)
    assert world.rows(STATE, t=tasks[1]) == [("Open", None, None, None)]


def test_release_needs_a_note_a_hold_and_the_right_team(
    world: World, plan: int, officer: str, person: Person
) -> None:
    engineer = person(world, "engineering")
    with pytest.raises(NotAllowed, match=f"service plan {plan} is not held"):
        decisions.release(world.engine, officer, plan, "nothing to do")
    decisions.decide(world.engine, officer, [world.task(plan)], "reject", "blocked account")
    with pytest.raises(NotAllowed, match="needs a note that says what was done"):
        decisions.release(world.engine, officer, plan, " ")
    with pytest.raises(NotAllowed, match="may not release payment_rejected: it is about money"):
        decisions.release(world.engine, engineer, plan, "let it through")
    with pytest.raises(
        NotAllowed,
        match=r"may not release holds: not in customer_success or engineering or finance$",
    ):
        decisions.release(world.engine, person(world, "leadership"), plan, "let it through")
    assert world.holds(plan) == ["payment_rejected"]
    assert decisions.release(world.engine, officer, plan, "unblocked") == 1
    assert world.rows("SELECT released_by, note FROM prepaid.holds") == [(officer, "unblocked")]
