"""Who had a hand in what is to be paid does not decide on it; everybody else of finance may."""

from collections.abc import Callable
from datetime import date

import pytest
from sqlalchemy import text

from prepaid_pipeline.billing import invoices, subscriptions
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from tests.people.conftest import sql_as
from tests.world import TODAY, World

Person = Callable[[World, str], str]


@pytest.fixture
def plan(world: World) -> int:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    return plan


@pytest.fixture
def ann(world: World, person: Person) -> str:
    return person(world, "finance")


@pytest.fixture
def bob(world: World, person: Person) -> str:
    return person(world, "finance")


def only_others_decide(
    world: World, hand: str, other: str, task: int, what: str, kind: str = "payment_verification"
) -> None:
    """``hand`` can neither approve nor reject, nor be asked to; ``other`` can."""
    for word in ("approve", "reject"):
        with pytest.raises(NotAllowed, match=f"task {task} cannot be decided: {hand} {what}"):
            decisions.decide(world.engine, hand, [task], word, "seen")
    with pytest.raises(NotAllowed, match=f"task {task} cannot be assigned: {hand} {what}"):
        decisions.reassign(world.engine, other, [task], hand, None)
    if kind == "payment_verification":
        ask = "SELECT may_decide, why_not FROM prepaid.payment_verifications WHERE task_id = :t"
        ((may, why_not),) = sql_as(world, hand, ask, t=task)
        assert (may, why_not.startswith("you ")) == (False, True)
        assert sql_as(world, other, ask, t=task) == [(True, None)]
    assert decisions.decide(world.engine, other, [task], "approve", "seen") == 1


def test_who_released_a_hold(world: World, plan: int, ann: str, bob: str) -> None:
    decisions.decide(world.engine, ann, [world.task(plan)], "reject", "blocked account")
    decisions.release(world.engine, ann, plan, "unblocked")
    only_others_decide(world, ann, bob, world.task(plan), "released a hold of the plan")


def test_who_rejected_may_approve_after_all(world: World, plan: int, ann: str) -> None:
    """Deciding is no hand in it: the hold that a rejection placed goes with the approval."""
    task = world.task(plan)
    decisions.decide(world.engine, ann, [task], "reject", "not on the statement")
    assert decisions.decide(world.engine, ann, [task], "approve", "found it") == 1
    assert decisions.decide(world.engine, ann, [task], "reject", "no, another one") == 1


def test_who_assigned_the_payment(world: World, plan: int, ann: str, bob: str) -> None:
    record = world.record("no such number", "10.73")
    world.match()
    decisions.assign(world.engine, ann, record or 0, world.invoice(plan), "the customer wrote")
    world.match()
    only_others_decide(world, ann, bob, world.task(plan), "assigned the payment to the invoice")


def test_who_had_the_invoice_issued_again(world: World, plan: int, ann: str, bob: str) -> None:
    invoices.void(
        world.engine, ann, world.invoice(plan), "wrong address", reissue=True, as_of=TODAY
    )
    world.open()
    world.pay(plan)
    only_others_decide(world, ann, bob, world.task(plan), "had the invoice (issued again|voided)")


def test_who_changed_the_plan(world: World, ann: str, bob: str) -> None:
    world.tax_rate("0.0725")
    bigger = world.plan("20.00")
    code = world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=bigger)
    subscription = world.subscription(world.customer(), world.plan("10.00"))
    world.term(subscription, date(2026, 10, 20), date(2026, 11, 20))
    waiting = subscriptions.change(
        world.engine,
        ann,
        subscriptions.Named(subscription, None),
        subscriptions.Change(code, on=TODAY),
        "grows",
        as_of=TODAY,
    )
    assert waiting is not None
    plan = waiting.service_plan_id
    world.open()
    world.pay(plan)
    only_others_decide(world, ann, bob, world.task(plan), "opened the plan, as a change of another")


def test_who_cancelled_does_not_pay_back(world: World, plan: int, ann: str, bob: str) -> None:
    world.pay_and_approve(plan)
    world.settle()
    subscriptions.cancel(
        world.engine,
        ann,
        subscriptions.find(world.engine, str(plan)),
        "moves",
        at_once=True,
        as_of=TODAY,
    )
    task = world.task(plan, "payment_refund")
    only_others_decide(
        world,
        ann,
        bob,
        task,
        "(cancelled the plan|cut the term|had the credit note)",
        "payment_refund",
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            "UPDATE prepaid.customers SET email = 'new@example.com'",
            "last changed the customer's data",
        ),
        ("UPDATE prepaid.subscriptions SET price = 1", "last changed the subscription"),
        (
            "UPDATE prepaid.discounts SET percent = 90",
            "last changed a discount of the subscription",
        ),
    ],
)
def test_who_last_changed_the_data(
    world: World, plan: int, ann: str, bob: str, change: str, what: str
) -> None:
    (subscription,) = world.rows("SELECT subscription_id FROM prepaid.subscriptions")[0]
    world.discount(subscription, percent="10", starts_on=date(2027, 1, 1))
    with world.engine.begin() as connection:
        connection.execute(text("SELECT set_config('prepaid.actor', :who, true)"), {"who": ann})
        connection.execute(text(change))
    only_others_decide(world, ann, bob, world.task(plan), what)


def test_an_import_after_it_is_the_last_change(world: World, plan: int, ann: str) -> None:
    for who, address in ((ann, "a@example.com"), ("prepaid import", "b@example.com")):
        with world.engine.begin() as connection:
            connection.execute(text("SELECT set_config('prepaid.actor', :who, true)"), {"who": who})
            connection.execute(text("UPDATE prepaid.customers SET email = :a"), {"a": address})
    assert decisions.decide(world.engine, ann, [world.task(plan)], "approve", None) == 1


def test_one_task_of_many_stops_them_all(world: World, plan: int, ann: str, bob: str) -> None:
    world.due_renewal()
    other = next(p for p in world.open() if p != plan)
    world.pay(other)
    decisions.decide(world.engine, bob, [world.task(plan)], "reject", "blocked account")
    decisions.release(world.engine, ann, plan, "unblocked")
    tasks = [world.task(other), world.task(plan)]
    with pytest.raises(NotAllowed, match="released a hold"):
        decisions.decide(world.engine, ann, tasks, "approve", None)
    assert world.sql("SELECT count(*) FROM prepaid.tasks WHERE decision = 'approved'") == 0
    # What somebody else decided before the release does not matter: bob only rejected.
    assert decisions.decide(world.engine, bob, tasks, "approve", None) == 2
