"""From what was billed to invoices and cash: every difference has a line, nothing is left."""

from datetime import date
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import invoices, subscriptions
from prepaid_pipeline.billing.subscriptions import Change, Named
from prepaid_pipeline.people import decisions
from prepaid_pipeline.revenue import figures, validation
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.rules import MONTHLY_FIGURES
from tests.revenue import sums
from tests.world import World, context

D = date
OCTOBER, NOVEMBER, DECEMBER, JANUARY = (
    D(2026, 10, 1),
    D(2026, 11, 1),
    D(2026, 12, 1),
    D(2027, 1, 1),
)
BOUGHT, LATER = D(2026, 11, 2), D(2027, 3, 31)


@pytest.fixture
def world(world: World) -> World:
    world.tax_rate("0.10")
    return world


def buy(world: World, on: date = BOUGHT, price: str = "30.00", months: int = 1) -> int:
    """A purchase that was opened and invoiced on that day."""
    known = set(world.plans())
    world.subscription(world.customer(), world.plan(price, months=months), started_on=on)
    (plan,) = [plan for plan in world.open(context(on)) if plan not in known]
    return plan


def pay(
    world: World,
    plan: int,
    on: date,
    amount: str | None = None,
    ref: str | None = None,
    status: str = "Success",
) -> int:
    other = {"provider_ref": ref} if ref else {}
    record = world.record(
        world.invoice(plan), amount, status=status, occurred_at=f"{on}T10:00:00Z", **other
    )
    world.match(context(on))
    assert record is not None
    return record


def activate(world: World, plan: int, on: date) -> None:
    world.approve(plan, note="looked at")
    world.settle(context(on))
    assert world.status(plan) == "Active"


def lines(world: World, month: date) -> dict[str, str]:
    """The lines of a month that are not 0, and that all sums of the year hold."""
    assert sums.broken(world.engine, OCTOBER, LATER) == {}
    return {line: str(amount) for line, amount in sums.lines(world.engine, month, LATER).items()}


def test_paid_at_once(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    assert lines(world, NOVEMBER) == {
        "billed": "30",
        "invoices_net": "30",
        "tax": "3",
        "invoices_total": "33",
        "cash": "33",
        "cash_received": "33",
    }
    assert lines(world, DECEMBER) == {}


def test_invoiced_before_the_month_in_which_it_is_paid(world: World) -> None:
    plan = buy(world, D(2026, 10, 30))
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    assert lines(world, OCTOBER) == {
        "waiting": "30",
        "invoices_net": "30",
        "tax": "3",
        "invoices_total": "33",
        "not_paid": "-33",
    }
    assert lines(world, NOVEMBER) == {
        "billed": "30",
        "waiting": "-30",
        "not_paid": "33",
        "cash": "33",
        "cash_received": "33",
    }


def test_paid_in_one_month_and_active_in_the_next(world: World) -> None:
    plan = buy(world, D(2026, 11, 28))
    pay(world, plan, D(2026, 11, 28))
    activate(world, plan, D(2026, 12, 1))
    november = lines(world, NOVEMBER)
    assert (november["waiting"], november["cash"]) == ("30", "33")
    assert lines(world, DECEMBER) == {"billed": "30", "waiting": "-30"}


def test_imported_terms_have_no_invoice_here(world: World) -> None:
    subscription = world.subscription(world.customer(), world.plan("30.00"), NOVEMBER)
    world.term(subscription, NOVEMBER, DECEMBER, price="30.00")
    assert lines(world, NOVEMBER) == {"billed": "30", "imported": "-30"}


def test_an_invoice_that_nobody_pays_and_is_void(world: World) -> None:
    plan = buy(world)
    clerk = world.officer()
    invoices.void(world.engine, clerk, world.invoice(plan), "wrong", reissue=False, as_of=DECEMBER)
    shown = {
        "waiting": "30",
        "invoices_net": "30",
        "tax": "3",
        "invoices_total": "33",
        "not_paid": "-33",
    }
    assert lines(world, NOVEMBER) == shown
    assert lines(world, DECEMBER) == {}


def test_a_void_invoice_and_its_successor(world: World) -> None:
    plan = buy(world)
    clerk = world.officer("second_clerk")
    invoices.void(world.engine, clerk, world.invoice(plan), "wrong", reissue=True, as_of=BOUGHT)
    world.open(context(BOUGHT))
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    found = lines(world, NOVEMBER)
    assert (found["billed"], found["waiting"], found["invoices_net"]) == ("30", "30", "60")
    assert (found["invoices_total"], found["not_paid"], found["cash"]) == ("66", "-33", "33")


def test_paid_in_parts(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT, "13.00")
    pay(world, plan, D(2026, 12, 1), "20.00")
    activate(world, plan, D(2026, 12, 1))
    assert lines(world, NOVEMBER)["not_paid"] == "-20"
    assert lines(world, DECEMBER) == {
        "billed": "30",
        "waiting": "-30",
        "not_paid": "20",
        "cash": "20",
        "cash_received": "20",
    }


def test_paid_twice(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    pay(world, plan, DECEMBER, ref="again")
    assert lines(world, DECEMBER) == {"overpaid": "33", "cash": "33", "cash_received": "33"}
    pay(world, plan, JANUARY, ref="again", status="Refunded")
    assert lines(world, JANUARY) == {"overpaid": "-33", "cash": "-33", "cash_returned": "-33"}


def test_a_payment_that_is_reported_twice_came_once(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT, ref="p")
    pay(world, plan, D(2026, 11, 3), ref="p")
    activate(world, plan, D(2026, 11, 3))
    assert lines(world, NOVEMBER)["cash"] == "33"


def test_money_that_belongs_to_no_invoice_until_it_is_assigned(world: World) -> None:
    plan = buy(world)
    record = world.record(None, "33.00", occurred_at=f"{BOUGHT}T10:00:00Z")
    assert record is not None
    world.match(context(BOUGHT))
    november = {
        "waiting": "30",
        "invoices_net": "30",
        "tax": "3",
        "invoices_total": "33",
        "not_paid": "-33",
        "unassigned": "33",
        "cash": "33",
        "cash_received": "33",
    }
    assert lines(world, NOVEMBER) == november
    clerk = world.officer("second_clerk")
    with world.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL prepaid.as_of = '2026-12-05'")
        connection.exec_driver_sql(f"SET LOCAL ROLE {clerk}")
        connection.exec_driver_sql(
            f"SELECT prepaid.assign_record({record}, '{world.invoice(plan)}', 'meant for it')"
        )
    world.match(context(D(2026, 12, 5)))
    activate(world, plan, D(2026, 12, 5))
    assert lines(world, NOVEMBER) == november, "what is known later changes no month that is over"
    assert lines(world, DECEMBER) == {
        "billed": "30",
        "waiting": "-30",
        "not_paid": "33",
        "unassigned": "-33",
    }


def test_more_than_the_invoice_assigned(world: World) -> None:
    plan = buy(world)
    record = pay(world, plan, BOUGHT, "40.00")
    decisions.assign(
        world.engine, world.officer("second_clerk"), record, world.invoice(plan), "all of it"
    )
    world.match(context(BOUGHT))
    activate(world, plan, BOUGHT)
    found = lines(world, NOVEMBER)
    assert (found["invoices_total"], found["overpaid"], found["cash"]) == ("33", "7", "40")


def test_taken_back_and_made_good(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT, ref="p")
    activate(world, plan, BOUGHT)
    november = lines(world, NOVEMBER)
    pay(world, plan, DECEMBER, ref="p", status="Chargeback")
    assert lines(world, NOVEMBER) == november
    assert lines(world, DECEMBER) == {"taken_back": "-33", "cash": "-33", "cash_returned": "-33"}
    pay(world, plan, JANUARY, ref="p", status="ChargebackReversed")
    assert lines(world, JANUARY) == {"taken_back": "33", "cash": "33", "cash_returned": "33"}


def test_taken_back_and_paid_anew(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT, ref="p")
    activate(world, plan, BOUGHT)
    pay(world, plan, DECEMBER, ref="p", status="Chargeback")
    pay(world, plan, JANUARY, ref="q")
    world.approve(plan)
    world.settle(context(JANUARY))
    assert lines(world, DECEMBER) == {"taken_back": "-33", "cash": "-33", "cash_returned": "-33"}
    assert lines(world, JANUARY) == {"taken_back": "33", "cash": "33", "cash_received": "33"}


def test_a_credit_note_and_its_refund(world: World) -> None:
    plan = buy(world, price="365.00", months=12)
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    care = world.officer("leaving_care", "customer_success")
    ((subscription,),) = world.rows("SELECT subscription_id FROM prepaid.subscriptions")
    subscriptions.cancel(
        world.engine,
        care,
        Named(subscription, None),
        "moves away",
        at_once=True,
        as_of=D(2026, 12, 12),
    )
    assert lines(world, DECEMBER) == {}
    ((number, refund),) = world.rows("SELECT credit_note_number, refund FROM prepaid.credit_notes")
    world.record(
        number, refund, status="Refunded", provider_ref="back", occurred_at="2027-01-04T10:00:00Z"
    )
    world.match(context(D(2027, 1, 4)))
    assert refund == Decimal("357.50")
    assert lines(world, JANUARY) == {
        "credit_notes_paid": "-357.5",
        "cash": "-357.5",
        "cash_returned": "-357.5",
    }


def test_a_change_is_paid_with_credit(world: World) -> None:
    plan = buy(world)
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    care = world.officer("leaving_care", "customer_success")
    dearer = world.plan("60.00")
    code = world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=dearer)
    ((subscription,),) = world.rows("SELECT subscription_id FROM prepaid.subscriptions")
    wanted = Change(code, on=D(2026, 11, 12))
    changed = subscriptions.change(
        world.engine, care, Named(subscription, None), wanted, "grows", as_of=D(2026, 11, 12)
    )
    assert changed is not None
    world.open(context(D(2026, 11, 12)))
    pay(world, changed.service_plan_id, D(2026, 11, 12))
    activate(world, changed.service_plan_id, D(2026, 11, 12))
    # 20 of 30 days come back: 20.00 and 2.00 tax pay a part of 66.00.
    assert lines(world, NOVEMBER) == {
        "billed": "90",
        "invoices_net": "90",
        "tax": "9",
        "invoices_total": "99",
        "paid_with_credit": "-22",
        "cash": "77",
        "cash_received": "77",
    }


def test_cut_while_the_payment_was_taken_back(world: World) -> None:
    """Nobody pays the unused days and nobody credits them: they leave with the invoice."""
    plan = buy(world, price="365.00", months=12)
    pay(world, plan, BOUGHT, ref="p")
    activate(world, plan, BOUGHT)
    pay(world, plan, DECEMBER, ref="p", status="Chargeback")
    ((subscription,),) = world.rows("SELECT subscription_id FROM prepaid.subscriptions")
    subscriptions.cancel(
        world.engine,
        world.officer(),
        Named(subscription, None),
        "unpaid",
        at_once=True,
        as_of=D(2026, 12, 12),
    )
    assert world.rows("SELECT count(*) FROM prepaid.credit_notes") == [(0,)]
    assert lines(world, DECEMBER) == {
        "taken_back": "-401.5",
        "cash": "-401.5",
        "cash_returned": "-401.5",
    }
    assert sums.deferred(world.engine, NOVEMBER, LATER) == [
        (NOVEMBER, *map(Decimal, ("0", "365", "29", "0", "336"))),
        (DECEMBER, *map(Decimal, ("336", "0", "11", "325", "0"))),
    ]


def test_money_that_is_dated_after_the_term_began(world: World) -> None:
    """A provider may date a payment by another clock than the day on which it was taken up."""
    plan = buy(world, D(2026, 11, 30))
    world.record(world.invoice(plan), occurred_at="2026-12-01T00:30:00Z")
    world.match(context(D(2026, 11, 30)))
    activate(world, plan, D(2026, 11, 30))
    assert lines(world, NOVEMBER)["dated_later"] == "-33"
    assert lines(world, DECEMBER) == {"dated_later": "33", "cash": "33", "cash_received": "33"}


def test_what_is_made_up_is_named(world: World) -> None:
    """The database refuses both; somebody who goes round its triggers is found."""
    plan = buy(world)
    pay(world, plan, BOUGHT)
    activate(world, plan, BOUGHT)
    assert lines(world, NOVEMBER)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("UPDATE prepaid.transactions SET amount = 30")
        connection.exec_driver_sql("UPDATE prepaid.service_plans SET net_amount = 29")
    found = sums.broken(world.engine, OCTOBER, LATER)["reconciled to the invoices and to cash"]
    assert {(line, amount) for _, _, line, amount in found} == {
        ("invoices_remainder", 1),
        ("cash_remainder", -3),
    }
    span = Span(NOVEMBER, NOVEMBER, LATER)
    figures.stage(world.engine, span, sums.RUN)
    suites = [suite for suite in MONTHLY_FIGURES if suite.table == "staged_reconciliation"]
    findings = validation.validate(world.engine.url, suites, run_id=sums.RUN, as_of=LATER)
    named = {finding.rule.name: finding.sample for finding in findings if finding.stops}
    assert set(named) == {
        "every_term_that_was_billed_has_its_invoice",
        "every_invoice_is_paid_with_money_that_came",
    }
    (row,) = named["every_term_that_was_billed_has_its_invoice"]
    assert (row["service_plan_id"], row["net_amount"]) == (str(plan), "29")
    (row,) = named["every_invoice_is_paid_with_money_that_came"]
    assert (row["invoice_number"], row["came"]) == (world.invoice(plan), "30")
