"""Leaving, changing, voiding when the money behind a term, or behind its credit, was taken back."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import invoices
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.billing.subscriptions.test_cancelling import active, cancel, charge_back, sound, term
from tests.billing.subscriptions.test_changing import DAY, change, changing, money, settle
from tests.world import World, context

Person = Callable[[World, str], str]
LATER = date(2026, 12, 20)
NOTES = "SELECT service_plan_id, total, applied, refund FROM prepaid.credit_notes ORDER BY 1"


@pytest.fixture
def care(world: World, person: Person) -> str:
    world.tax_rate("0.0725")
    return person(world, "customer_success")


def give_back(world: World, plan: int) -> None:
    """The chargeback of a plan's payment is reversed, and finance verifies it again."""
    ((provider_ref, amount, number),) = world.rows(
        "SELECT t.provider_ref, t.amount, i.invoice_number FROM prepaid.transactions t"
        " JOIN prepaid.invoices i USING (invoice_number)"
        " WHERE i.service_plan_id = :p AND t.status = 'Chargeback'",
        p=plan,
    )
    world.record(
        number,
        amount,
        provider_ref=provider_ref,
        status="ChargebackReversed",
        occurred_at="2026-11-13T10:00:00Z",
    )
    world.match(context(date(2026, 11, 13)))
    world.approve(plan)


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_term_that_was_cut_already_stays_as_it_is(
    world: World, care: str, ahead: bool, expired: bool
) -> None:
    """Before the first day of a change that is paid, or as of a day before it."""
    subscription, old = active(world, "30.00")
    starts = date(2026, 11, 20) if ahead else DAY
    waiting = change(world, care, subscription, world.plan("60.00"), starts)
    assert waiting is not None
    new = waiting.service_plan_id
    world.open(context(date(2026, 11, 14)))
    settle(world, new, date(2026, 11, 14))
    assert term(world, old)[1:] == (starts, date(2026, 12, 2))
    if expired:
        steps.expire_service_plans(world.engine, context(date(2026, 11, 15)))
    done = cancel(
        world, care, subscription, None if ahead else date(2026, 11, 11), as_of=date(2026, 11, 15)
    )
    assert done.leaves_on == starts
    assert [(p.service_plan_id, p.outcome, p.ends_on, p.refund) for p in done.plans] == [
        (new, "ended", starts, Decimal("64.35"))
    ]
    assert term(world, old)[1:] == (starts, date(2026, 12, 2))
    assert term(world, new) == ("Cancelled", starts, term(world, new)[2])
    credit = Decimal("12.87") if ahead else Decimal("21.45")  # 12 or 20 of 30 days
    assert world.rows(NOTES) == [
        (old, credit, credit, Decimal("0.00")),
        (new, Decimal("64.35"), Decimal("0"), Decimal("64.35")),
    ]
    steps.expire_service_plans(world.engine, context(starts))
    assert world.status(old) == "Expired"
    sound(world, starts)


def test_credit_of_a_term_whose_payment_was_taken_back_is_not_paid_out(
    world: World, care: str
) -> None:
    subscription, old, new = changing(world, care)
    settle(world, new)
    charge_back(world, old)
    number = world.invoice(old)
    before = world.dump()
    said = (
        f"service plan {new} was paid with credit of invoice {number}, whose payment was "
        "reversed: have it paid again first, or wait for the end of the term, 2026-12-12"
    )
    with pytest.raises(NotAllowed, match=said):
        cancel(world, care, subscription, as_of=DAY)
    with pytest.raises(NotAllowed, match=said):
        change(world, care, subscription, world.plan("90.00"), date(2026, 11, 13))
    assert world.dump() == before
    steps.expire_service_plans(world.engine, context(DAY))
    give_back(world, old)
    world.settle(context(DAY))
    assert cancel(world, care, subscription, as_of=DAY).plans[0].refund == Decimal("64.35")
    sound(world, DAY)


def test_credit_in_a_payment_that_was_taken_back_is_not_lost(world: World, care: str) -> None:
    subscription, _, new = changing(world, care)
    settle(world, new)
    steps.expire_service_plans(world.engine, context(DAY))
    charge_back(world, new)
    said = (
        f"the payment of invoice {world.invoice(new)} was reversed, and its credit of 21.45 USD"
        " would be lost: have it paid again first, or wait for the end of the term, 2026-12-12"
    )
    with pytest.raises(NotAllowed, match=said):
        cancel(world, care, subscription, as_of=DAY)
    assert cancel(world, care, subscription, at_once=False).leaves_on == date(2026, 12, 12)
    # Nobody has paid when it is over: the rest is not collectible, the credit was used.
    steps.expire_service_plans(world.engine, context(LATER))
    invoices.void(world.engine, world.officer(), world.invoice(new), "lost", as_of=LATER)
    assert world.status(new) == "Expired"
    assert world.rows(NOTES)[0][2] == Decimal("21.45")
    sound(world, LATER)


@pytest.mark.parametrize("again", ["reversed", "paid anew"])
def test_a_cut_term_that_is_paid_only_later_is_credited_then(
    world: World, care: str, again: str
) -> None:
    subscription, old = active(world, "30.00")
    waiting = change(world, care, subscription, world.plan("60.00"))
    assert waiting is not None
    charge_back(world, old)
    world.open(context(DAY))
    new = waiting.service_plan_id
    assert money(world, new)[1] == 0
    settle(world, new)
    assert term(world, old)[1:] == (DAY, date(2026, 12, 2))
    assert world.rows(NOTES) == []
    sound(world, DAY)
    steps.expire_service_plans(world.engine, context(DAY))
    if again == "reversed":
        give_back(world, old)
    else:
        world.pay_and_approve(old)
    for _ in range(2):
        world.settle(context(date(2026, 11, 14)))
    assert world.rows(NOTES) == [(old, Decimal("21.45"), Decimal("0"), Decimal("21.45"))]
    assert world.rows(
        "SELECT n.reason, k.status, k.service_plan_id FROM prepaid.tasks k"
        " JOIN prepaid.credit_notes n USING (credit_note_id)"
    ) == [("change", "Open", old)]
    sound(world, date(2026, 11, 14))


def test_not_at_once_while_a_record_is_not_judged(world: World, care: str) -> None:
    subscription, old, new = changing(world, care)
    settle(world, new)
    ((reference, number),) = world.rows(
        "SELECT t.provider_ref, i.invoice_number FROM prepaid.transactions t"
        " JOIN prepaid.invoices i USING (invoice_id) WHERE i.service_plan_id = :p",
        p=old,
    )
    # Not named by its number: the payment is the same one.
    world.record(
        None,
        "32.18",
        provider_ref=reference,
        status="Chargeback",
        occurred_at="2026-11-12T12:00:00Z",
    )
    said = f"payment records of invoice {number} are not judged yet: run 'prepaid drain' or wait"
    with pytest.raises(NotAllowed, match=said):
        cancel(world, care, subscription, as_of=DAY)
    world.match(context(date(2026, 11, 13)))
    with pytest.raises(NotAllowed, match="was paid with credit of invoice"):
        cancel(world, care, subscription, as_of=DAY)

    other, plan = active(world, "30.00")
    world.record(world.invoice(plan), status="Refunded", occurred_at="2026-11-12T12:00:00Z")
    with pytest.raises(NotAllowed, match="are not judged yet"):
        cancel(world, care, other, as_of=DAY)
    assert cancel(world, care, other, at_once=False).leaves_on == date(2026, 12, 2)


@pytest.mark.parametrize("left", [False, True])
def test_what_is_over_and_not_paid_is_voided_as_not_collectible(
    world: World, care: str, left: bool
) -> None:
    subscription, plan = active(world, "30.00")
    number, officer = world.invoice(plan), world.officer()
    world.sql("UPDATE prepaid.subscriptions SET auto_renew = false")
    if left:
        cancel(world, care, subscription, as_of=DAY)
    else:
        steps.expire_service_plans(world.engine, context(LATER))
    charge_back(world, plan)
    was = world.status(plan)
    assert was == ("Cancelled" if left else "Expired")
    with pytest.raises(
        NotAllowed, match=rf"is {was} already; its invoice {number} is open: a new p"
    ):
        cancel(world, care, subscription, plan=plan, as_of=LATER)
    with pytest.raises(NotAllowed, match=f"is {was}: its invoice can be voided, not reissued"):
        invoices.void(world.engine, officer, number, "x", reissue=True, as_of=LATER)
    invoices.void(world.engine, officer, number, "moved, no address", as_of=LATER)
    assert world.status(plan) == was
    assert world.sql("SELECT status FROM prepaid.invoices") == "Void"
    assert world.holds(plan) == []
    assert (
        world.rows(
            "SELECT FROM prepaid.tasks WHERE kind = 'payment_verification' AND status = 'Open'"
        )
        == []
    )
    if not left:
        assert world.rows("SELECT released_by, note FROM prepaid.holds") == [
            (officer, "moved, no address")
        ]
    assert world.rows("SELECT kind FROM prepaid.requests ORDER BY request_id DESC LIMIT 1") == [
        ("invoice_void",)
    ]
    # A reversal that comes after that is money for finance to look at.
    ((reference,),) = world.rows("SELECT DISTINCT provider_ref FROM prepaid.transactions")
    world.record(
        number,
        "32.18",
        provider_ref=reference,
        status="ChargebackReversed",
        occurred_at="2026-12-21T10:00:00Z",
    )
    world.match(context(date(2026, 12, 21)))
    world.settle(context(LATER))
    assert world.sql("SELECT status FROM prepaid.invoices") == "Void"
    assert world.sql(
        "SELECT outcome_reason FROM prepaid.transactions WHERE status = 'Success'"
    ) == (f"invoice {number} is void")
    sound(world, LATER)


def test_a_payment_taken_back_is_not_made_good_by_releasing(world: World, care: str) -> None:
    subscription, plan = active(world, "30.00")
    charge_back(world, plan)
    with pytest.raises(NotAllowed, match="may not release payment_reversed: it is about money"):
        decisions.release(world.engine, care, plan, "fine")
    with pytest.raises(
        NotAllowed, match="was reversed, and releasing does not pay it: the hold ends"
    ):
        decisions.release(world.engine, world.officer(), plan, "fine")
    assert world.holds(plan) == ["payment_reversed"]
    cancel(world, care, subscription, as_of=DAY)
    assert world.holds(plan) == []


def imported_change(world: World, care: str) -> int:
    """A change from an imported term, invoiced with credit 21.45; the plan that waits."""
    subscription = world.subscription(world.customer(), world.plan("30.00"), date(2026, 11, 2))
    world.term(subscription, date(2026, 11, 2), date(2026, 12, 2), price="30.00")
    waiting = change(world, care, subscription, world.plan("60.00"))
    assert waiting is not None
    world.open(context(DAY))
    assert money(world, waiting.service_plan_id)[1] == Decimal("21.45")
    return waiting.service_plan_id


@pytest.mark.parametrize("what", ["tax_exempt", "country"])
def test_the_credit_of_imported_days_is_what_the_invoice_was_made_with(
    world: World, care: str, what: str
) -> None:
    new = imported_change(world, care)
    world.sql(
        "UPDATE prepaid.customers SET tax_exempt = true"
        if what == "tax_exempt"
        else "UPDATE prepaid.customers SET country = 'FR'"
    )
    settle(world, new)
    assert world.status(new) == "Active"
    assert [row[1:3] for row in world.rows(NOTES)] == [(Decimal("21.45"), Decimal("21.45"))]
    sound(world, DAY)


def test_rates_that_were_changed_afterwards_hold_the_change(world: World, care: str) -> None:
    new = imported_change(world, care)
    world.tax_rate("0.05", valid_from="2026-11-01")
    settle(world, new)
    assert (world.status(new), world.holds(new)) == ("Pending", ["credit_differs"])
    assert "credits 21.45 USD" in world.sql("SELECT text FROM prepaid.holds")
    assert "it is 21.00" in world.sql("SELECT text FROM prepaid.holds")
    world.sql("DELETE FROM prepaid.tax_rates WHERE valid_from = '2026-11-01'")
    decisions.release(world.engine, world.officer(), new, "rate put right")
    world.settle(context(DAY))
    assert world.status(new) == "Active"
    sound(world, DAY)
