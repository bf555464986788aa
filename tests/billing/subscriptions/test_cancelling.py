"""Leaving: at the end of the term or at once, who may, and what becomes of plan, money and mail."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Cancelled, Named
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]


@pytest.fixture
def care(world: World, person: Person) -> str:
    world.tax_rate("0.0725")
    return person(world, "customer_success")


def active(world: World, price: str = "10.00", **plan: int) -> tuple[int, int]:
    """A purchase of TODAY that is paid and active: subscription and plan."""
    known = set(world.plans())
    subscription = world.subscription(world.customer(), world.plan(price, **plan))
    (bought,) = (p for p in world.open() if p not in known)
    world.pay_and_approve(bought)
    world.settle()
    return subscription, bought


def cancel(
    world: World,
    person: str,
    subscription: int,
    on: date | None = None,
    *,
    plan: int | None = None,
    as_of: date = TODAY,
    at_once: bool = True,
) -> Cancelled:
    return subscriptions.cancel(
        world.engine,
        person,
        Named(subscription, plan),
        "moves abroad",
        at_once=at_once,
        on=on,
        as_of=as_of,
    )


def term(world: World, plan: int) -> tuple[object, ...]:
    (row,) = world.rows(
        "SELECT status, end_date, full_end_date FROM prepaid.service_plans"
        " WHERE service_plan_id = :p",
        p=plan,
    )
    return row


def leaves(world: World, subscription: int) -> date | None:
    return world.sql(
        "SELECT cancelled_on FROM prepaid.subscriptions WHERE subscription_id = :s", s=subscription
    )


def sound(world: World, as_of: date = TODAY) -> None:
    found = invariants.run(world.engine, context(as_of))
    assert {c.name: c.findings for c in found if c.findings} == {}


def charge_back(world: World, plan: int) -> None:
    """The payment of a plan is taken back by the customer's bank."""
    ((provider_ref, amount, number),) = world.rows(
        "SELECT t.provider_ref, t.amount, i.invoice_number FROM prepaid.transactions t"
        " JOIN prepaid.invoices i USING (invoice_id)"
        " WHERE i.service_plan_id = :p AND t.outcome = 'matched'",
        p=plan,
    )
    world.record(
        number,
        amount,
        provider_ref=provider_ref,
        status="Chargeback",
        occurred_at="2026-11-09T10:00:00Z",
    )
    world.match()


def test_at_the_end_of_the_term(world: World, care: str) -> None:
    subscription, plan = active(world)
    done = cancel(world, care, subscription, at_once=False)
    assert done.leaves_on == leaves(world, subscription) == date(2026, 12, 2)
    assert [(p.service_plan_id, p.outcome, p.ends_on) for p in done.plans] == [
        (plan, "ends", date(2026, 12, 2))
    ]
    assert term(world, plan) == ("Active", date(2026, 12, 2), None)
    assert world.sql("SELECT count(*) FROM prepaid.credit_notes") == 0
    later = context(date(2026, 12, 2))
    assert steps.open_service_plans(world.engine, later) == 0
    assert steps.expire_service_plans(world.engine, later) == 1
    sound(world, date(2027, 1, 15))
    with pytest.raises(NotAllowed, match=r"is already cancelled, as of 2026-12-02"):
        cancel(world, care, subscription, at_once=False)


def test_at_the_end_with_the_renewal_invoiced(world: World, care: str) -> None:
    """The renewal is cancelled with its invoice; taken back in time, it is opened again."""
    world.due_renewal(TODAY + timedelta(days=5))
    (renewal,) = world.open()
    number = world.invoice(renewal)
    world.record(number)
    world.match()
    (subscription,) = world.rows("SELECT subscription_id FROM prepaid.subscriptions")[0]
    done = cancel(world, care, subscription, at_once=False)
    assert [p.outcome for p in done.plans] == ["ends", "never begins"]
    assert world.status(renewal) == "Cancelled"
    assert world.rows("SELECT status, transaction_id FROM prepaid.invoices") == [("Void", None)]
    assert world.rows(
        "SELECT t.outcome, k.kind, k.status FROM prepaid.transactions t"
        " JOIN prepaid.tasks k USING (transaction_id)"
    ) == [("parked", "payment_review", "Open")]
    sound(world)

    assert steps.open_service_plans(world.engine, context()) == 0
    world.sql("UPDATE prepaid.subscriptions SET cancelled_on = NULL")
    assert steps.open_service_plans(world.engine, context()) == 1
    (again,) = (p for p in world.open() if p != renewal)
    assert world.invoice(again) != number


def test_at_once(world: World, care: str) -> None:
    subscription, plan = active(world, "30.00")  # 2 November to 2 December: 30 days
    day = date(2026, 11, 12)
    done = cancel(world, care, subscription, as_of=day)
    assert done.leaves_on == leaves(world, subscription) == day
    assert term(world, plan) == ("Cancelled", day, date(2026, 12, 2))
    # 20 of 30 days of 30.00 + 7.25 % tax (2.18): 20.00 and 1.4533.
    assert world.rows(
        "SELECT credit_note_number, net, tax, total, applied, refund, reason, note, issued_on,"
        " issued_by FROM prepaid.credit_notes"
    ) == [
        (
            "CN-2026-000001",
            Decimal("20.00"),
            Decimal("1.45"),
            Decimal("21.45"),
            0,
            Decimal("21.45"),
            "cancellation",
            "moves abroad",
            day,
            care,
        )
    ]
    assert world.rows(
        "SELECT kind, status, assigned_role, opened_on FROM prepaid.tasks"
        " WHERE kind IN ('payment_refund', 'quality_check') ORDER BY kind"
    ) == [
        ("payment_refund", "Open", "finance", day),
        ("quality_check", "Withdrawn", "customer_success", TODAY),
    ]
    assert world.rows("SELECT template, occasion FROM prepaid.emails ORDER BY email_id") == [
        ("activation_confirmation", "activation"),
        ("cancellation_confirmation", "at_once"),
    ]
    assert world.rows(
        "SELECT event, before, after FROM prepaid.audit_log WHERE actor = :who"
        " AND event NOT LIKE 'task%' ORDER BY audit_id",
        who=care,
    ) == [
        ("cancellation_requested", None, "2026-11-12"),
        ("subscription_changed", None, None),
        ("credit_note_issued", None, None),
        ("term_cut", "2026-12-02", "2026-11-12"),
        ("service_plan_cancelled", "Active", "Cancelled"),
    ]
    for after in (0, 20, 60):
        at = context(day + timedelta(days=after))
        assert steps.open_service_plans(world.engine, at) == 0
        assert steps.expire_service_plans(world.engine, at) == 0
    sound(world, date(2027, 1, 15))


def test_at_once_on_the_first_day_everything_is_credited(world: World, care: str) -> None:
    world.tax_rate("0.19", tax_class="high")
    addons = (world.addon("3.33", tax_class="high"), world.addon("9.99", recurring=False))
    subscription = world.subscription(world.customer(), world.plan("10.00"), addons=addons)
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    cancel(world, care, subscription)
    assert term(world, plan) == ("Cancelled", TODAY, date(2026, 12, 2))
    assert world.rows("SELECT net, tax, total FROM prepaid.credit_notes") == world.rows(
        "SELECT net, tax, total FROM prepaid.invoices"
    )
    lines = "SELECT line_number, description, net, tax_class, tax_rate, tax FROM prepaid."
    assert world.rows(lines + "credit_note_lines ORDER BY 1") == world.rows(
        lines + "invoice_lines ORDER BY 1"
    )
    sound(world)
    # The day is free: a term that was never used is in nobody's way.
    world.term(subscription, TODAY, date(2026, 12, 2))


def test_one_time_fees_stay(world: World, care: str) -> None:
    addons = (world.addon("6.00"), world.addon("9.99", recurring=False))
    subscription = world.subscription(world.customer(), world.plan("30.00"), addons=addons)
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    cancel(world, care, subscription, as_of=date(2026, 11, 17))  # 15 of 30 days
    assert world.rows("SELECT line_number, net, tax FROM prepaid.credit_note_lines ORDER BY 1") == [
        (1, Decimal("15.00"), Decimal("1.09")),
        (2, Decimal("3.00"), Decimal("0.22")),
    ]


def test_a_day_that_has_passed(world: World, care: str) -> None:
    subscription, plan = active(world)
    today = date(2026, 11, 20)
    for day, said in (
        (date(2026, 11, 21), "2026-11-21 is in the future: cancel on that day"),
        (date(2026, 11, 1), "the term starts on 2026-11-02: it can be cancelled from that day on"),
    ):
        with pytest.raises(NotAllowed, match=said):
            cancel(world, care, subscription, day, as_of=today)
    cancel(world, care, subscription, date(2026, 11, 14), as_of=today)
    assert term(world, plan) == ("Cancelled", date(2026, 11, 14), date(2026, 12, 2))


def test_at_once_with_the_next_term_paid_already(world: World, care: str) -> None:
    """The running term is credited by days, the next one in full; or only the next one."""
    for alone in (False, True):
        subscription, running = active(world)
        known = set(world.plans())
        ahead = context(date(2026, 11, 27))
        (renewal,) = (p for p in world.open(ahead) if p not in known)
        world.pay_and_approve(renewal)
        world.settle(ahead)
        assert world.status(renewal) == "Active"
        with pytest.raises(NotAllowed, match=f"is followed by service plan {renewal} "):
            cancel(world, care, subscription, plan=running, as_of=ahead.as_of, at_once=False)
        done = cancel(world, care, subscription, plan=renewal if alone else None, as_of=ahead.as_of)
        assert term(world, renewal) == ("Cancelled", date(2026, 12, 2), date(2027, 1, 2))
        assert [p.refund for p in done.plans if p.service_plan_id == renewal] == [Decimal("10.73")]
        if alone:
            assert term(world, running) == ("Active", date(2026, 12, 2), None)
            assert leaves(world, subscription) == date(2026, 12, 2)
        else:
            assert term(world, running) == ("Cancelled", ahead.as_of, date(2026, 12, 2))
            assert leaves(world, subscription) == ahead.as_of
        sound(world, ahead.as_of)


def test_imported_history_is_credited_at_todays_rates(world: World, care: str) -> None:
    subscription = world.subscription(world.customer(country="DE"), world.plan(), TODAY)
    plan = world.term(subscription, TODAY, date(2026, 12, 2), price="30.00")
    day = date(2026, 11, 12)
    with pytest.raises(
        NotAllowed, match=r"no tax rate is known for standard in DE on 2026-11-12, so"
    ):
        cancel(world, care, subscription, as_of=day)
    assert term(world, plan)[0] == "Active"
    world.tax_rate("0.16", country="DE")
    world.tax_rate("0.19", country="DE", valid_from="2026-11-12")
    cancel(world, care, subscription, as_of=day)
    assert world.rows("SELECT invoice_id, net, tax FROM prepaid.credit_notes") == [
        (None, Decimal("20.00"), Decimal("3.80"))
    ]

    exempt = world.subscription(world.customer(country="FR", tax_exempt=True), world.plan(), TODAY)
    world.term(exempt, TODAY, date(2026, 12, 2), price="30.00")
    (ending,) = cancel(world, care, exempt, as_of=day).plans
    assert ending.credited == Decimal("20.00")
    sound(world, day)


def test_a_plan_that_waits(world: World, care: str) -> None:
    subscription = world.subscription(world.customer(), world.plan())
    (plan,) = world.open()
    done = cancel(world, care, subscription, plan=plan)
    assert (done.leaves_on, [p.outcome for p in done.plans]) == (TODAY, ["never begins"])
    assert world.status(plan) == "Cancelled"
    assert world.sql("SELECT status FROM prepaid.invoices") == "Void"
    assert world.sql("SELECT status FROM prepaid.tasks") == "Withdrawn"
    assert world.sql("SELECT count(*) FROM prepaid.emails") == 0
    assert steps.open_service_plans(world.engine, context()) == 0
    sound(world)
    with pytest.raises(NotAllowed, match=f"service plan {plan} is Cancelled already"):
        cancel(world, care, subscription, plan=plan)


def test_a_purchase_that_is_not_opened_yet(world: World, care: str) -> None:
    subscription = world.subscription(world.customer(), world.plan(), date(2026, 12, 24))
    assert cancel(world, care, subscription).leaves_on == date(2026, 12, 24)
    assert steps.open_service_plans(world.engine, context(date(2026, 12, 24))) == 0


def test_a_plan_that_is_paid_and_not_active(world: World, care: str) -> None:
    """Held between payment and activation: the whole invoice is credited and paid back."""
    subscription = world.subscription(world.customer(), world.plan())
    (plan,) = world.open()
    world.pay_and_approve(plan)
    batch = steps.claim(world.engine, "settle_renewals", context())
    assert batch is not None
    for step in ("check_payment_status", "mark_invoices_paid"):
        steps.run_step(world.engine, step, batch, context())
    cancel(world, care, subscription)
    assert world.status(plan) == "Cancelled"
    assert world.rows("SELECT total, refund FROM prepaid.credit_notes") == [
        (Decimal("10.73"), Decimal("10.73"))
    ]
    assert world.rows("SELECT kind FROM prepaid.tasks WHERE status = 'Open'") == [
        ("payment_refund",)
    ]
    world.settle()
    assert world.status(plan) == "Cancelled"
    sound(world)


def test_a_payment_that_was_taken_back_is_not_paid_back(world: World, care: str) -> None:
    subscription, plan = active(world)
    charge_back(world, plan)
    assert world.holds(plan) == ["payment_reversed"]
    cancel(world, care, subscription, as_of=date(2026, 11, 12))
    assert term(world, plan)[0] == "Cancelled"
    assert world.sql("SELECT status FROM prepaid.invoices") == "Void"
    assert world.sql("SELECT count(*) FROM prepaid.credit_notes") == 0
    assert world.holds(plan) == []


@pytest.mark.parametrize(
    ("team", "note", "said"),
    [
        ("leadership", "x", "may not cancel plans: not in customer_success or finance"),
        ("engineering", "x", "may not cancel plans: not in customer_success or finance"),
        ("customer_success", " ", "to cancel plans needs a note that says why"),
    ],
)
def test_who_may_and_why(
    world: World, care: str, person: Person, team: str, note: str, said: str
) -> None:
    subscription, _ = active(world)
    somebody = person(world, team)
    before = world.dump()
    with pytest.raises(NotAllowed, match=said):
        subscriptions.cancel(world.engine, somebody, Named(subscription, None), note, as_of=TODAY)
    assert world.dump() == before


def test_paying_back_is_for_finance_to_confirm(world: World, care: str, person: Person) -> None:
    subscription, _ = active(world)
    cancel(world, care, subscription)
    task = world.sql("SELECT task_id FROM prepaid.tasks WHERE kind = 'payment_refund'")
    with pytest.raises(NotAllowed, match="it belongs to finance"):
        decisions.decide(world.engine, care, [task], "approve", None)
    officer = person(world, "finance")
    assert decisions.decide(world.engine, officer, [task], "approve", "paid back by transfer") == 1
    sound(world)
