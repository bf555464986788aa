"""Another plan in the middle of the term, paid first with the days that are not used."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Change, Named, Waiting
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.billing.subscriptions.test_cancelling import active, cancel, charge_back, sound, term
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]
DAY = date(2026, 11, 12)  # 10 of the 30 days from 2 November are used


@pytest.fixture
def care(world: World, person: Person) -> str:
    world.tax_rate("0.0725")
    return person(world, "customer_success")


def code(world: World, plan: int) -> str:
    return world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=plan)


def change(
    world: World,
    person: str,
    subscription: int,
    to: int,
    on: date | None = DAY,
    as_of: date = DAY,
    **asked: object,
) -> Waiting | None:
    wanted = Change(code(world, to), on=on, **asked)  # type: ignore[arg-type]
    return subscriptions.change(
        world.engine, person, Named(subscription, None), wanted, "grows", as_of=as_of
    )


def changing(world: World, care: str, price: str = "60.00", **plan: int) -> tuple[int, int, int]:
    """Subscription, its term of 30.00 from 2 November, and the waiting change of 12 November."""
    subscription, old = active(world, "30.00")
    waiting = change(world, care, subscription, world.plan(price, **plan))
    assert waiting is not None
    world.open(context(DAY))
    return subscription, old, waiting.service_plan_id


def settle(world: World, plan: int, day: date = DAY) -> None:
    world.pay_and_approve(plan)
    world.settle(context(day))


def dates(world: World, plan: int) -> tuple[object, ...]:
    (row,) = world.rows(
        "SELECT kind, status, start_date, end_date, anchor_date FROM prepaid.service_plans"
        " WHERE service_plan_id = :p",
        p=plan,
    )
    return row


def money(world: World, plan: int) -> tuple[object, ...]:
    (row,) = world.rows(
        "SELECT total, credit, payable, status FROM prepaid.invoices"
        " WHERE service_plan_id = :p AND status <> 'Void'",
        p=plan,
    )
    return row


def subscribed(world: World, subscription: int) -> tuple[object, ...]:
    (row,) = world.rows(
        "SELECT plan_id, price, prepaid.addon_codes(subscription_id) FROM prepaid.subscriptions"
        " WHERE subscription_id = :s",
        s=subscription,
    )
    return row


def test_the_unused_days_pay_a_part(world: World, care: str) -> None:
    _, old, new = changing(world, care)
    assert dates(world, new) == ("change", "Pending", DAY, date(2026, 12, 12), DAY)
    # 60.00 + 4.35; 20 of 30 days of 30.00 + 2.18 are 20.00 + 1.45.
    assert money(world, new) == (
        Decimal("64.35"),
        Decimal("21.45"),
        Decimal("42.90"),
        "Open",
    )
    assert term(world, old) == ("Active", date(2026, 12, 2), None)
    settle(world, new)
    assert dates(world, new) == ("change", "Active", DAY, date(2026, 12, 12), DAY)
    assert term(world, old) == ("Active", DAY, date(2026, 12, 2))
    assert world.rows(
        "SELECT n.total, n.applied, n.refund, n.reason, i.service_plan_id"
        " FROM prepaid.credit_notes n"
        " JOIN prepaid.invoices i ON i.invoice_id = n.applied_to_invoice_id"
    ) == [(Decimal("21.45"), Decimal("21.45"), Decimal("0.00"), "change", new)]
    assert world.sql("SELECT count(*) FROM prepaid.tasks WHERE kind = 'payment_refund'") == 0
    steps.expire_service_plans(world.engine, context(DAY))
    assert world.status(old) == "Expired"
    sound(world, DAY)

    # The old term is not renewed; the new one is, on its own anchor.
    assert steps.open_service_plans(world.engine, context(date(2026, 12, 2))) == 0
    (renewal,) = (p for p in world.open(context(date(2026, 12, 8))) if p > new)
    assert dates(world, renewal)[0::2] == ("renewal", date(2026, 12, 12), DAY)
    settle(world, renewal, date(2026, 12, 12))
    sound(world, date(2026, 12, 12))


def test_a_credit_over_the_whole_invoice_is_paid_back(world: World, care: str) -> None:
    """A smaller plan: nothing to pay, nothing to verify, and finance pays the rest back."""
    _, old, new = changing(world, care, "12.00")
    assert money(world, new) == (Decimal("12.87"), Decimal("12.87"), Decimal("0.00"), "Open")
    assert world.task(new) is None
    world.settle(context(DAY))
    assert term(world, old)[0:2] == ("Active", DAY)
    assert world.rows(
        "SELECT n.total, n.applied, n.refund, k.status FROM prepaid.credit_notes n"
        " JOIN prepaid.tasks k USING (credit_note_id)"
    ) == [(Decimal("21.45"), Decimal("12.87"), Decimal("8.58"), "Open")]
    sound(world, DAY)


@pytest.mark.parametrize("days", [0, 1, 7])
def test_paid_within_grace_it_starts_as_planned(world: World, care: str, days: int) -> None:
    """So the days that were credited and the days of the new term are the same days."""
    _, old, new = changing(world, care)
    settle(world, new, DAY + timedelta(days))
    assert dates(world, new) == ("change", "Active", DAY, date(2026, 12, 12), DAY)
    assert term(world, old)[1] == DAY
    sound(world, DAY + timedelta(days))


def test_paid_after_grace_a_person_decides(world: World, care: str) -> None:
    _, old, new = changing(world, care)
    late = DAY + timedelta(8)
    settle(world, new, late)
    assert world.holds(new) == ["change_paid_late"]
    assert (world.status(new), term(world, old)[1]) == ("Pending", date(2026, 12, 2))
    with pytest.raises(NotAllowed, match="may not release change_paid_late: it is about money"):
        decisions.release(world.engine, care, new, "a present")
    decisions.release(world.engine, world.officer(), new, "a present")
    world.settle(context(late))
    assert dates(world, new) == ("change", "Active", late, date(2026, 12, 20), late)
    assert term(world, old) == ("Active", late, date(2026, 12, 2))
    # What the invoice granted, neither more nor less.
    assert world.rows("SELECT total, applied FROM prepaid.credit_notes") == [
        (Decimal("21.45"), Decimal("21.45"))
    ]
    sound(world, late)


def test_paid_after_the_old_term_has_ended(world: World, care: str) -> None:
    subscription, old = active(world, "30.00")
    near_end = date(2026, 11, 30)
    waiting = change(world, care, subscription, world.plan("60.00"), near_end, near_end)
    assert waiting is not None
    new = waiting.service_plan_id
    world.open(context(near_end))
    steps.expire_service_plans(world.engine, context(date(2026, 12, 2)))
    settle(world, new, date(2026, 12, 5))  # within grace: from the day that it was asked for
    assert dates(world, new)[2:4] == (near_end, date(2026, 12, 30))
    assert term(world, old) == ("Expired", near_end, date(2026, 12, 2))
    sound(world, date(2026, 12, 5))

    subscription, old = active(world, "30.00")
    waiting = change(world, care, subscription, world.plan("60.00"), near_end, near_end)
    assert waiting is not None
    new = waiting.service_plan_id
    world.open(context(near_end))
    late = date(2026, 12, 20)
    steps.expire_service_plans(world.engine, context(late))
    settle(world, new, late)
    decisions.release(world.engine, world.officer(), new, "goes on")
    world.settle(context(late))
    assert dates(world, new)[1:4] == ("Active", late, date(2027, 1, 20))
    assert term(world, old) == ("Expired", date(2026, 12, 2), None)
    sound(world, late)


def test_cancelled_before_it_is_active_nothing_has_happened(world: World, care: str) -> None:
    """The subscription gets back what it had, and the old term its renewal."""
    addon = world.addon("5.00")
    customer, plan = world.customer(), world.plan("30.00")
    subscription = world.subscription(customer, plan, price="28.00", addons=(addon,))
    (old,) = world.open()
    settle(world, old, TODAY)
    had = subscribed(world, subscription)
    day = date(2026, 11, 27)
    (renewal,) = (p for p in world.open(context(day)) if p != old)
    waiting = change(world, care, subscription, world.plan("60.00"), day, day, addons=[])
    assert waiting is not None
    assert world.status(renewal) == "Cancelled"
    assert subscribed(world, subscription) == (*subscribed(world, subscription)[:2], "none")
    world.open(context(day))
    world.record(world.invoice(waiting.service_plan_id))
    world.match()

    cancel(world, care, subscription, plan=waiting.service_plan_id, as_of=day)
    assert subscribed(world, subscription) == had
    assert world.sql("SELECT cancelled_on FROM prepaid.subscriptions") is None
    assert term(world, old) == ("Active", date(2026, 12, 2), None)
    assert world.sql("SELECT count(*) FROM prepaid.credit_notes") == 0
    (again,) = (p for p in world.open(context(day)) if p > waiting.service_plan_id)
    assert dates(world, again)[0:3] == ("renewal", "Pending", date(2026, 12, 2))
    settle(world, again, date(2026, 12, 2))
    assert world.status(again) == "Active"
    sound(world, date(2026, 12, 2))


def test_what_somebody_changed_since_stays(world: World, care: str) -> None:
    subscription, _, new = changing(world, care)
    world.sql("UPDATE prepaid.subscriptions SET price = 1")
    before = subscribed(world, subscription)
    cancel(world, care, subscription, plan=new, as_of=DAY)
    assert subscribed(world, subscription) == before


def test_at_renewal(world: World, care: str) -> None:
    subscription, _ = active(world, "30.00")
    year = world.plan("300.00", months=12)
    assert change(world, care, subscription, year, None, price=Decimal("250.00")) is None
    (renewal,) = world.open(context(date(2026, 12, 1)))[1:]
    # Below the list: finance approves the price before it is invoiced.
    price = world.task(renewal, "price_concession")
    decisions.decide(world.engine, world.officer(), [price], "approve", "agreed")
    world.open(context(date(2026, 12, 1)))
    assert dates(world, renewal) == (
        "renewal",
        "Pending",
        date(2026, 12, 2),
        date(2027, 12, 2),
        TODAY,
    )
    assert money(world, renewal)[0] == Decimal("268.13")


def test_at_renewal_when_it_is_open_already(world: World, care: str) -> None:
    subscription, _ = active(world, "30.00")
    day = date(2026, 11, 28)
    steps.open_service_plans(world.engine, context(day))
    opened = change(world, care, subscription, world.plan("60.00"), None, day)
    assert opened is not None
    assert not opened.retrieved
    world.open(context(day))
    assert money(world, opened.service_plan_id)[0] == Decimal("64.35")
    invoiced = change(world, care, subscription, world.plan("90.00"), None, day)
    assert invoiced is not None
    assert (invoiced.retrieved, invoiced.invoice_number) == (True, "INV-2026-000002")


def test_refusals(world: World, care: str) -> None:
    subscription, _ = active(world, "30.00")
    better, unpriced = world.plan("60.00"), world.plan(None)
    yearly = world.plan("600.00", months=12)
    monthly_only = world.addon("1.00")
    state = subscribed(world, subscription)
    named = code(world, better)
    addon = world.sql("SELECT addon_code FROM prepaid.addons WHERE addon_id = :a", a=monthly_only)

    def refused(said: str, to: int = better, on: date | None = DAY, **asked: object) -> None:
        with pytest.raises(NotAllowed, match=said):
            change(world, care, subscription, to, on, **asked)  # type: ignore[arg-type]

    refused(
        "2026-11-11 has passed: a plan can be changed from today on, 2026-11-12",
        on=date(2026, 11, 11),
    )
    refused(
        "no term of subscription S3 runs on 2027-06-01: change it at the renewal",
        on=date(2027, 6, 1),
    )
    refused(
        "the term of subscription S3 starts on 2026-11-02: change it from the next day on",
        on=TODAY,
        as_of=TODAY,
    )
    refused("has no price in USD on 2026-11-12: name one with --price", unpriced)
    refused("there is no add-on nothing", addons=["nothing"])
    refused(
        f"no price in USD for a term of plan {code(world, yearly)}: add-on {addon}",
        yearly,
        addons=[addon],
    )
    refused(
        "the price 1.005 is none in USD: expected 0 or more with at most 2 decimals",
        price=Decimal("1.005"),
    )
    refused("the price -1 is none", price=Decimal(-1))
    (plan_id,) = world.rows("SELECT plan_id FROM prepaid.subscriptions")[0]
    refused("subscription S3 already has that plan, price and add-ons", plan_id)
    with pytest.raises(NotAllowed, match="there is no plan nothing"):
        subscriptions.change(
            world.engine, care, Named(subscription, None), Change("nothing"), "x", as_of=DAY
        )
    assert subscribed(world, subscription) == state

    change(world, care, subscription, better)
    refused(r"service plan \d+ changes subscription S3 already, from 2026-11-12 on", yearly)
    assert world.sql("SELECT count(*) FROM prepaid.service_plans") == 2
    assert named != code(world, yearly)


def test_not_while_the_customer_leaves_or_has_paid_the_next_term(world: World, care: str) -> None:
    subscription, _ = active(world, "30.00")
    better = world.plan("60.00")
    ahead = context(date(2026, 11, 27))
    renewal = world.open(ahead)[-1]
    settle(world, renewal, ahead.as_of)
    with pytest.raises(
        NotAllowed, match=f"the next term .service plan {renewal}, .* is already paid"
    ):
        change(world, care, subscription, better, ahead.as_of, ahead.as_of)
    leaving, _ = active(world, "30.00")
    cancel(world, care, leaving, at_once=False)
    with pytest.raises(NotAllowed, match="is cancelled as of 2026-12-02: undo that first"):
        change(world, care, leaving, better)


def test_a_running_term_whose_payment_was_taken_back(world: World, care: str) -> None:
    _, old, new = changing(world, care)
    world.pay_and_approve(new)
    charge_back(world, old)
    world.settle(context(DAY))
    assert world.holds(new) == ["credit_not_paid"]
    assert term(world, old)[1] == date(2026, 12, 2)


def test_cancelling_at_once_takes_the_change_along(world: World, care: str) -> None:
    subscription, old, new = changing(world, care)
    done = cancel(world, care, subscription, as_of=DAY)
    assert [p.outcome for p in done.plans] == ["ended", "never begins"]
    assert (world.status(old), world.status(new)) == ("Cancelled", "Cancelled")
    sound(world, DAY)


def test_cancelling_the_change_once_it_runs(world: World, care: str) -> None:
    """On its first day all of it is credited: what was paid, and what the old term had paid."""
    subscription, _, new = changing(world, care)
    settle(world, new)
    (ended,) = cancel(world, care, subscription, as_of=DAY).plans
    assert (ended.service_plan_id, ended.refund) == (new, Decimal("64.35"))
    sound(world, DAY)


def test_paid_but_not_active_yet_the_credit_is_no_money_to_pay_back(
    world: World, care: str
) -> None:
    subscription, old, new = changing(world, care)
    world.pay_and_approve(new)
    batch = steps.claim(world.engine, "settle_renewals", context(DAY))
    assert batch is not None
    for step in ("check_payment_status", "mark_invoices_paid"):
        steps.run_step(world.engine, step, batch, context(DAY))
    (ended,) = cancel(world, care, subscription, plan=new, as_of=DAY).plans
    assert (ended.credited, ended.refund) == (Decimal("64.35"), Decimal("42.90"))
    assert term(world, old) == ("Active", date(2026, 12, 2), None)
    sound(world, DAY)


def test_from_imported_history(world: World, care: str) -> None:
    subscription = world.subscription(world.customer(), world.plan("30.00"), TODAY)
    old = world.term(subscription, TODAY, date(2026, 12, 2), price="30.00")
    waiting = change(world, care, subscription, world.plan("60.00"))
    assert waiting is not None
    world.open(context(DAY))
    # The rate changes between invoice and activation: both say the same amount all the same.
    world.tax_rate("0.5", valid_from="2026-11-13")
    settle(world, waiting.service_plan_id, date(2026, 11, 14))
    assert money(world, waiting.service_plan_id)[1] == Decimal("21.45")
    assert world.rows("SELECT invoice_id, total, applied FROM prepaid.credit_notes") == [
        (None, Decimal("21.45"), Decimal("21.45"))
    ]
    assert term(world, old) == ("Active", DAY, date(2026, 12, 2))
    sound(world, date(2026, 11, 14))
