"""After the last day to pay: the plan is cancelled, its invoice void, a late payment parked."""

from datetime import date, timedelta
from pathlib import Path

from prepaid_pipeline.context import Context
from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.billing.dunning.conftest import day, dun, invoices, mails, unpaid
from tests.world import TODAY, World, context


def sound(world: World, at: Context) -> None:
    assert [f for result in invariants.run(world.engine, at) for f in result.findings] == []


def test_cancelled_on_the_day_after_the_last_day(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    number = taxed.invoice(plan)
    assert dun(taxed, 30) == (1, 0)
    assert dun(taxed, 31) == (0, 1)
    assert taxed.status(plan) == "Cancelled"
    assert invoices(taxed, plan) == [("Void", TODAY)]
    assert taxed.rows("SELECT kind, status FROM prepaid.tasks") == [
        ("payment_verification", "Withdrawn")
    ]
    assert mails(taxed, plan, template="unpaid_cancellation") == [number]
    assert taxed.rows(
        "SELECT event, before, after, detail, actor, as_of FROM prepaid.audit_log"
        " WHERE as_of = :day AND event <> 'task_withdrawn' ORDER BY event",
        day=day(31).as_of,
    ) == [
        ("invoice_void", "Open", "Void", number, "pipeline", date(2026, 12, 3)),
        (
            "payment_not_received",
            None,
            None,
            f"Invoice {number} was due on 2026-11-02 and could be"
            " paid until 2026-12-02: the plan is cancelled",
            "pipeline",
            date(2026, 12, 3),
        ),
        ("service_plan_cancelled", "Pending", "Cancelled", None, "pipeline", date(2026, 12, 3)),
    ]
    before = taxed.dump()
    assert dun(taxed, 31) == dun(taxed, 99) == (0, 0)
    assert taxed.dump() == before
    sound(taxed, day(31))


def test_never_means_never(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    assert dun(taxed, 5000, payment_days=None) == (1, 0)
    assert dun(taxed, 6000, payment_days=None) == (0, 0)
    assert taxed.status(plan) == "Pending"


def test_no_reminder_on_the_day_of_the_cancellation(taxed: World) -> None:
    """The job did not run for a month: nobody is asked to pay what is cancelled in the same run."""
    (plan,) = unpaid(taxed)
    assert dun(taxed, 60) == (0, 1)
    assert mails(taxed, plan) == []


def test_a_late_payment_is_parked_for_finance(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    number, total = taxed.rows("SELECT invoice_number, total FROM prepaid.invoices")[0]
    dun(taxed, 31)
    record = taxed.record(number, total)
    assert taxed.match(day(32))["parked"] == 1
    assert taxed.rows("SELECT outcome, outcome_reason FROM prepaid.transactions") == [
        ("parked", f"invoice {number} is void")
    ]
    assert taxed.rows(
        "SELECT transaction_id, status, assigned_role FROM prepaid.tasks"
        " WHERE kind = 'payment_review'"
    ) == [(record, "Open", "finance")]
    assert taxed.status(plan) == "Cancelled"
    sound(taxed, day(32))


def test_a_cancelled_renewal_is_not_opened_again_and_is_no_silent_miss(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    dun(taxed, 31)
    for n in (31, 32, 60):
        assert steps.open_service_plans(taxed.engine, day(n)) == 0
        # Also on a day at which the ended term lies within the window.
        assert steps.open_service_plans(taxed.engine, context()) == 0
    assert taxed.plans() == [plan]
    sound(taxed, day(60))


def test_a_cancelled_purchase_is_not_opened_again(taxed: World) -> None:
    taxed.subscription(taxed.customer(), taxed.plan())
    (plan,) = taxed.open()
    assert dun(taxed, 31) == (0, 1)
    assert steps.open_service_plans(taxed.engine, day(32)) == 0
    assert taxed.status(plan) == "Cancelled"
    sound(taxed, day(60))


def test_the_customer_comes_back_by_an_order(taxed: World, tmp_path: Path) -> None:
    """One after a cancelled renewal, one after a cancelled first purchase."""
    unpaid(taxed)
    taxed.subscription(taxed.customer(), taxed.plan())
    plans = taxed.open()
    assert dun(taxed, 31) == (0, 2)
    refs = [
        row[0]
        for row in taxed.rows(
            "SELECT subscription_ref FROM prepaid.subscriptions ORDER BY subscription_id"
        )
    ]
    lines = [f"{ref},2026-12-10,2027-01-10,10.00,Pending" for ref in refs]
    (tmp_path / "service_plans.csv").write_text(
        "\n".join(["subscription_ref,start_date,end_date,price,status", *lines, ""])
    )
    back = context(date(2026, 12, 10))
    (report,) = import_directory(taxed.engine, tmp_path, as_of=back.as_of, grace_days=7)
    assert (report.status, report.errors) == ("imported", [])
    orders = [plan for plan in taxed.open(back) if plan not in plans]
    assert len(orders) == 2
    taxed.pay_and_approve(*orders)
    taxed.settle(back)
    assert taxed.rows(
        "SELECT kind, status, start_date FROM prepaid.service_plans"
        " WHERE service_plan_id = ANY (:orders) ORDER BY service_plan_id",
        orders=orders,
    ) == [
        ("reactivation", "Active", date(2026, 12, 10)),
        ("new", "Active", date(2026, 12, 10)),
    ]
    # From here on it renews as any other.
    after = context(date(2027, 1, 10))
    steps.expire_service_plans(taxed.engine, after)
    assert steps.open_service_plans(taxed.engine, after) == 2
    sound(taxed, after)


def test_weekly_terms_have_as_long_to_pay(taxed: World) -> None:
    subscription = taxed.subscription(taxed.customer(), taxed.plan(days=7))
    start = TODAY - timedelta(days=7)
    taxed.term(subscription, start, TODAY)
    taxed.open()
    assert dun(taxed, 30) == (1, 0)
    assert dun(taxed, 31) == (0, 1)
