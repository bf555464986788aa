"""Reminders: which day, to whom, each once, and none while the payment is in our own hands."""

from datetime import date, timedelta

import pytest

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from tests.billing.dunning.conftest import dun, mails, unpaid
from tests.world import TODAY, World, context


def test_a_reminder_on_each_of_the_days(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    number = taxed.invoice(plan)
    sent = {n: reminded for n in range(31) if (reminded := dun(taxed, n)[0])}
    assert sent == {3: 1, 7: 1, 14: 1}
    assert mails(taxed, plan) == [f"{number} day 3", f"{number} day 7", f"{number} day 14"]
    assert taxed.rows("SELECT DISTINCT recipient, invoice_id FROM prepaid.emails") == [
        ("someone@example.com", taxed.sql("SELECT invoice_id FROM prepaid.invoices"))
    ]


def test_days_that_the_job_did_not_run_are_not_made_up_for(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    assert dun(taxed, 15) == (1, 0)
    assert mails(taxed, plan) == [f"{taxed.invoice(plan)} day 14"]
    # Again, and for days that are over by now.
    for n in (15, 16, 3, 7, 30):
        assert dun(taxed, n) == (0, 0)


def test_the_days_are_a_setting(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    assert dun(taxed, 30, reminder_days=()) == (0, 0)
    assert dun(taxed, 1, reminder_days=(1, 2)) == (1, 0)
    # Other days from now on: those that lie before the last reminder are over.
    assert dun(taxed, 5, reminder_days=(1, 5), payment_days=None) == (1, 0)
    assert dun(taxed, 400, reminder_days=(4, 366), payment_days=None) == (1, 0)
    number = taxed.invoice(plan)
    assert mails(taxed, plan) == [f"{number} day 1", f"{number} day 5", f"{number} day 366"]


@pytest.mark.parametrize("ends_on", [TODAY + timedelta(days=7), TODAY - timedelta(days=5)])
def test_due_is_the_later_of_issue_and_planned_start(taxed: World, ends_on: date) -> None:
    """Issued on 2 November: a week ahead of the term, and five days after it was to start."""
    taxed.due_renewal(ends_on=ends_on)
    taxed.open()
    due = max(ends_on, TODAY) - TODAY
    assert dun(taxed, due.days + 2) == (0, 0)
    assert dun(taxed, due.days + 3) == (1, 0)
    assert dun(taxed, due.days + 30) == (1, 0)
    assert dun(taxed, due.days + 31) == (0, 1)


def test_batches(taxed: World) -> None:
    plans = unpaid(taxed, 5)
    assert dun(taxed, 7, batch_size=2) == (5, 0)
    assert len(mails(taxed, *plans)) == 5
    assert dun(taxed, 31, batch_size=2) == (0, 5)


def test_a_new_invoice_starts_anew(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    assert dun(taxed, 7) == (1, 0)
    # What voiding an invoice and issuing it again leaves behind, ten days later.
    taxed.sql("UPDATE prepaid.invoices SET status = 'Void'")
    taxed.sql(
        "INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net,"
        " tax, total, status, issued_on) SELECT 'INV-2026-000002', service_plan_id, customer_id,"
        " currency, net, tax, total, 'Open', issued_on + 10 FROM prepaid.invoices"
    )
    assert dun(taxed, 12) == (0, 0)
    assert dun(taxed, 13) == (1, 0)
    assert mails(taxed, plan) == ["INV-2026-000001 day 7", "INV-2026-000002 day 3"]
    assert dun(taxed, 40) == (1, 0)
    assert dun(taxed, 41) == (0, 1)


def test_nothing_to_pay_is_nothing_to_remind_of(taxed: World) -> None:
    subscription = taxed.subscription(taxed.customer(), taxed.plan("0.00"))
    taxed.open()
    assert taxed.sql("SELECT total FROM prepaid.invoices") == 0
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    assert subscription


def test_a_matched_payment_without_sign_off_is_not_the_customers_fault(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan))
    assert dun(taxed, 3) == (0, 0), "landed and not judged yet"
    assert taxed.match()["matched"] == 1
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    taxed.approve(plan)
    taxed.settle(context(TODAY + timedelta(days=99)))
    assert taxed.status(plan) == "Active"
    assert dun(taxed, 200) == (0, 0)


def test_a_record_that_was_assigned_to_the_invoice_is_waited_for(taxed: World) -> None:
    """It keeps the number that was delivered; until it is judged anew nobody is reminded."""
    (plan,) = unpaid(taxed)
    taxed.record("INV-1999-000001", "10.73")
    taxed.sql(
        "UPDATE prepaid.transactions SET invoice_id = (SELECT invoice_id FROM prepaid.invoices)"
    )
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    assert taxed.status(plan) == "Pending"


def test_while_finance_looks_at_a_payment_nobody_is_reminded(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan), "1.00")
    assert taxed.match()["parked"] == 1
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    review = taxed.task(plan, "payment_review")
    decisions.decide(taxed.engine, taxed.officer(), [review], "reject", "sent back to the customer")
    assert dun(taxed, 14) == (1, 0)
    assert dun(taxed, 31) == (0, 1)


def test_a_held_plan_is_not_dunned_until_it_is_released(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.approve(plan, word="reject", note="the account holder is somebody else")
    assert taxed.holds(plan) == ["payment_rejected"]
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    decisions.release(taxed.engine, taxed.officer(), plan, "the customer pays anew")
    assert dun(taxed, 14) == (1, 0)


def test_finance_has_seen_the_money_and_the_record_is_late(taxed: World) -> None:
    """It cannot be approved, which would have no effect; rejected, the plan is held, and nobody is
    told to pay until it is released.
    """
    (plan,) = unpaid(taxed)
    with pytest.raises(NotAllowed, match="there is nothing to approve"):
        taxed.approve(plan)
    taxed.approve(plan, word="reject", note="on the statement, its record is late")
    assert [dun(taxed, n) for n in (3, 14, 99)] == [(0, 0)] * 3
    taxed.pay(plan)
    taxed.approve(plan, note="here it is")
    taxed.settle()
    assert taxed.status(plan) == "Active"


def test_plans_that_are_not_invoiced_are_none_of_it(taxed: World) -> None:
    taxed.due_renewal(email=None)
    taxed.due_renewal(country="DE")
    for plan in taxed.open():
        assert taxed.holds(plan)
    assert dun(taxed, 99) == (0, 0)
