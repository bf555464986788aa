"""Customers who leave, and payments that are taken back, between opening and activation."""

from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.world import TODAY, World, context


@pytest.fixture
def plan(world: World) -> int:
    """A renewal of 10.00 + 7.25 % tax, invoiced and waiting."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    return plan


LEAVING = [
    (
        "UPDATE prepaid.subscriptions SET cancelled_on = '2026-11-01'",
        "was cancelled as of 2026-11-01",
    ),
    ("UPDATE prepaid.subscriptions SET auto_renew = false", "was set not to renew"),
]


@pytest.mark.parametrize(("change", "words"), LEAVING)
def test_leaving_after_opening_holds_before_the_invoice(
    world: World, change: str, words: str
) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    steps.open_service_plans(world.engine, context())
    world.sql(change)
    (plan,) = world.open()
    assert world.holds(plan) == ["subscription_cancelled"]
    assert words in world.sql("SELECT text FROM prepaid.holds")
    assert world.invoice(plan) is None


@pytest.mark.parametrize(("change", "words"), LEAVING)
def test_leaving_after_the_invoice_holds_before_the_payment_is_accepted(
    world: World, plan: int, change: str, words: str
) -> None:
    world.pay_and_approve(plan)
    world.sql(change)
    world.settle()
    assert world.holds(plan) == ["subscription_cancelled"]
    assert words in world.sql("SELECT text FROM prepaid.holds")
    assert world.sql("SELECT status FROM prepaid.invoices") == "Open"

    # Whoever releases it has approved it no longer: somebody else does.
    decisions.release(world.engine, world.officer(), plan, "wants to stay")
    world.settle()
    assert world.status(plan) == "Pending"
    other = world.officer("test_clerk")
    decisions.decide(world.engine, other, [world.task(plan)], "approve", "seen")
    world.settle()
    assert world.status(plan) == "Active"


def test_an_explicit_order_does_not_need_automatic_renewal(world: World) -> None:
    world.tax_rate("0.0725")
    subscription = world.subscription(
        world.customer(), world.plan(), date(2026, 10, 1), auto_renew=False
    )
    ended = world.term(subscription, date(2026, 10, 1), date(2026, 11, 1))
    world.order(ended, date(2026, 11, 3), date(2026, 12, 3), kind="renewal")
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    # Within grace, and it keeps the start that was ordered: no day is sold that has passed.
    assert world.rows(
        "SELECT status, kind, start_date, end_date FROM prepaid.service_plans"
        " WHERE service_plan_id = :p",
        p=plan,
    ) == [("Active", "renewal", date(2026, 11, 3), date(2026, 12, 3))]


@pytest.mark.parametrize("word", ["Chargeback", "Refunded", "Failed"])
def test_a_payment_taken_back_before_activation_pays_nothing(
    world: World, plan: int, word: str
) -> None:
    world.record(world.invoice(plan), provider_ref="p1")
    world.match()
    assert world.sql("SELECT agrees FROM prepaid.payment_verifications")
    world.approve(plan)
    first_task = world.task(plan)
    world.record(
        world.invoice(plan),
        "10.73",
        provider_ref="p1",
        status=word,
        occurred_at="2026-11-02T11:00Z",
    )
    # Landed and not judged: finance sees it, and nothing is paid with that money meanwhile.
    assert world.sql("SELECT difference FROM prepaid.payment_verifications") == (
        f"a later record of the same payment says {word}"
    )
    world.settle()
    assert world.status(plan) == "Pending"

    world.match()
    world.settle()
    assert world.status(plan) == "Pending"
    assert world.sql("SELECT status FROM prepaid.invoices") == "Open"
    # The approval was for that money: the next payment is verified anew.
    assert world.task(plan) > first_task
    world.record(world.invoice(plan), provider_ref="p2", occurred_at="2026-11-03T08:00Z")
    world.match()
    world.settle()
    assert world.status(plan) == "Pending"
    world.approve(plan)
    world.settle()
    assert world.status(plan) == "Active"


def test_cancelling_takes_invoice_task_and_holds_along(world: World, plan: int) -> None:
    world.sql(
        "INSERT INTO prepaid.holds (service_plan_id, reason_code, text)"
        " VALUES (:p, 'step_failed', 'x')",
        p=plan,
    )
    number = world.invoice(plan)
    world.cancel(plan)
    assert world.sql("SELECT status FROM prepaid.invoices") == "Void"
    assert world.sql("SELECT status FROM prepaid.tasks") == "Withdrawn"
    assert world.holds(plan) == []
    world.record(number)
    assert world.match()["parked"] == 1


def test_what_was_closed_is_logged_before_the_plan(world: World, plan: int) -> None:
    world.approve(plan, word="reject", note="blocked account")
    world.officer("another")
    decisions.release(world.engine, "another", plan, "unblocked")
    world.sql(
        "INSERT INTO prepaid.holds (service_plan_id, reason_code, text)"
        " VALUES (:p, 'step_failed', 'x')",
        p=plan,
    )
    before = world.sql("SELECT max(audit_id) FROM prepaid.audit_log")
    world.cancel(plan)
    logged = world.rows(
        "SELECT event FROM prepaid.audit_log WHERE audit_id > :before ORDER BY audit_id",
        before=before,
    )
    assert [event for (event,) in logged] == [
        "task_withdrawn",
        "invoice_void",
        "hold_released",
        "service_plan_cancelled",
    ]


def test_a_plan_that_was_not_closed_is_not_cancelled(world: World, plan: int) -> None:
    """Its place in the queue, its open invoice or a hold alone is enough to refuse it."""
    bare = "UPDATE prepaid.service_plans SET status = 'Cancelled' WHERE service_plan_id = :p"
    hold = (
        "INSERT INTO prepaid.holds (service_plan_id, reason_code, text)"
        " VALUES (:p, 'step_failed', 'x')"
    )
    out_of_queue = "DELETE FROM prepaid.unsettled_plans WHERE service_plan_id = :p"
    void = "SELECT prepaid.void_open_invoices(ARRAY[CAST(:p AS bigint)])"
    for given in ((), (out_of_queue,), (void,), (out_of_queue, void, hold)):
        with world.engine.connect() as connection:
            for statement in given:
                connection.execute(text(statement), {"p": plan})
            with pytest.raises(DBAPIError, match="close_waiting_plans comes first"):
                connection.execute(text(bare), {"p": plan})
            connection.rollback()
    world.cancel(plan)
    assert world.status(plan) == "Cancelled"


def test_money_for_a_cancelled_plan_goes_to_finance(world: World, plan: int) -> None:
    world.pay_and_approve(plan)
    world.cancel(plan)
    assert world.rows("SELECT outcome, outcome_reason FROM prepaid.transactions") == [
        ("parked", "invoice INV-2026-000001 is void")
    ]
    assert world.rows(
        "SELECT status, assigned_role FROM prepaid.tasks WHERE kind = 'payment_review'"
    ) == [("Open", "finance")]
    world.settle()
    assert world.status(plan) == "Cancelled"


@pytest.mark.parametrize(("cancelled_on", "due"), [(date(2026, 11, 20), 1), (TODAY, 0)])
def test_a_purchase_that_is_cancelled_later_is_opened(
    world: World, cancelled_on: date, due: int
) -> None:
    world.subscription(world.customer(), world.plan(), cancelled_on=cancelled_on)
    assert steps.open_service_plans(world.engine, context()) == due


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-1"])
def test_a_price_is_a_number(world: World, price: str) -> None:
    with pytest.raises(Exception, match="violates check constraint"):
        world.plan(price)
