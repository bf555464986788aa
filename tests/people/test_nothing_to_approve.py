"""An approval that would have no effect is refused, with what to do; and nothing waits unseen."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations import installation, invariants
from prepaid_pipeline.people import decisions
from tests.people.conftest import sql_as
from tests.world import World, context

Person = Callable[[World, str], str]
WAIT = "wait for the record, or assign a parked one to the invoice"
ASSIGN = "assign records that pay the invoice .prepaid payments assign., or reject the payment"


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    module_world.tax_rate("0.0725")
    return module_world


@pytest.fixture(scope="module")
def officer(world: World, person: Person) -> str:
    return person(world, "finance")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, f"no record from a payment provider yet; {WAIT}"),
        ({"amount": "10.00"}, f"the record says 10.00, the invoice 10.73; {ASSIGN}"),
        ({"amount": "12.00"}, f"the record says 12.00, the invoice 10.73; {ASSIGN}"),
        ({"status": "Failed"}, f"the record says Failed; {ASSIGN}"),
        ({"status": "Pending"}, f"the record says Pending; {ASSIGN}"),
        ({"currency": "EUR"}, f"the record is in EUR, the invoice in USD; {ASSIGN}"),
        (
            {"customer_ref": "C999"},
            f"the record names customer C999, the invoice C.*; {ASSIGN}",
        ),
    ],
)
def test_it_is_refused_and_stays_in_the_list(
    world: World, officer: str, changes: dict[str, str] | None, said: str
) -> None:
    known = set(world.plans())
    world.due_renewal()
    (plan,) = (plan for plan in world.open() if plan not in known)
    if changes is not None:
        world.record(world.invoice(plan), **{"amount": "10.73", **changes})
    world.match()
    task = world.task(plan)
    before = world.dump()
    with pytest.raises(
        NotAllowed, match=f"task {task} cannot be decided: there is nothing to approve: {said}"
    ):
        decisions.decide(world.engine, officer, [task], "approve", "it will come")
    assert world.dump() == before
    ((may, reject, what_to_do),) = sql_as(
        world,
        officer,
        "SELECT may_decide, may_reject, what_to_do IS NOT NULL FROM prepaid.payment_verifications"
        " WHERE task_id = :t AND status = 'Open'",
        t=task,
    )
    assert (may, reject, what_to_do) == (False, True, True)
    # A rejection has an effect, whatever has come.
    if changes:
        decisions.decide(world.engine, officer, [task], "reject", "not ours")
        assert world.holds(plan) == ["payment_rejected"]
    world.match()
    found = invariants.run(world.engine, context())
    assert [line for check in found for line in check.findings] == []


def test_what_fits_and_is_parked_after_all_is_asked_again(world: World, officer: str) -> None:
    """Approved between its landing and its judgement; the payment has paid another invoice."""
    known = set(world.plans())
    world.due_renewal()
    world.due_renewal()
    paid, plan = (plan for plan in world.open() if plan not in known)
    world.record(world.invoice(paid), provider_ref="once")
    world.match()
    world.record(world.invoice(plan), provider_ref="once", occurred_at="2026-11-02T11:00Z")
    first = world.task(plan)
    assert decisions.decide(world.engine, officer, [first], "approve", "it is there") == 1
    world.match()
    assert world.task(plan) > first
    assert world.sql("SELECT status FROM prepaid.tasks WHERE task_id = :t", t=world.task(plan)) == (
        "Open"
    )
    found = invariants.run(world.engine, context())
    assert [line for check in found for line in check.findings] == []


def test_an_approval_of_an_earlier_release_is_found_and_asked_again(
    world: World, officer: str
) -> None:
    """It was taken before there was a record; 'prepaid migrate' says so and asks finance again."""
    known = set(world.plans())
    world.due_renewal()
    (plan,) = (plan for plan in world.open() if plan not in known)
    task, number = world.task(plan), world.invoice(plan)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE prepaid.sign_offs DISABLE TRIGGER only_people_sign")
        named = {"t": task, "who": officer}
        for statement in (
            "UPDATE prepaid.tasks SET status = 'Done', decision = 'approved', decided_at = now(),"
            " decided_by = :who WHERE task_id = :t",
            "INSERT INTO prepaid.sign_offs (task_id, decision, decided_by)"
            " VALUES (:t, 'approved', :who)",
        ):
            connection.execute(text(statement), named)
        connection.exec_driver_sql(
            "ALTER TABLE prepaid.sign_offs ENABLE ALWAYS TRIGGER only_people_sign"
        )
    unseen = {
        check.name: check.findings
        for check in invariants.run(world.engine, context())
        if check.findings
    }
    assert unseen == {
        "23_no_plan_waits_where_no_list_shows_it": [
            f"service plan {plan} is Pending, and the payment of invoice {number} is approved, and no"
            " record pays it, but no list shows it"
        ]
    }
    judged = installation.judge_open_approvals(world.engine)
    assert judged == [
        f"invoice {number}: {officer} approved a payment that no record pays; task {task} is"
        " withdrawn, finance is asked again"
    ]
    assert installation.judge_open_approvals(world.engine) == []
    assert world.task(plan) > task
    world.pay(plan)
    decisions.decide(world.engine, officer, [world.task(plan)], "approve", None)
    world.settle()
    assert world.status(plan) == "Active"
    assert [c.findings for c in invariants.run(world.engine, context()) if c.findings] == []
