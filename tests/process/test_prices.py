"""Steps 1 and 3: which price, how many, which discounts, what is charged once, which tax."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.world import TODAY, World, context

LINES = """SELECT description, quantity, unit_price, list_amount, discount, invoice_lines.net
           FROM prepaid.invoice_lines JOIN prepaid.invoices USING (invoice_id)
           WHERE service_plan_id = :plan ORDER BY line_number"""


def nets(world: World, plan: int) -> list[str]:
    return [str(row[-1]) for row in world.rows(LINES, plan=plan)]


def amounts(world: World, plan: int) -> tuple[Any, ...]:
    """net_amount and recurring_amount."""
    (row,) = world.rows(
        "SELECT net_amount, recurring_amount FROM prepaid.service_plans WHERE service_plan_id = :p",
        p=plan,
    )
    return row


def renew(world: World, on: date) -> int:
    """Settle the newest plan on its start, then open the renewals of that day; the new one's id."""
    newest = world.plans()[-1]
    world.pay_and_approve(newest)
    start = "SELECT planned_start FROM prepaid.service_plans WHERE service_plan_id = :plan"
    world.settle(context(world.sql(start, plan=newest)))
    return world.open(context(on))[-1]


@pytest.mark.parametrize(
    ("starts_on", "net"),
    [
        ("2026-11-02", "10.00"),
        ("2026-11-04", "10.00"),
        ("2026-11-05", "12.00"),
        ("2026-11-06", "12.00"),
    ],
)
def test_a_term_takes_the_price_of_its_start(world: World, starts_on: str, net: str) -> None:
    """Not of the day on which it is opened, which is the same for all of these."""
    world.tax_rate("0")
    plan, addon = world.plan("10.00"), world.addon("1.00")
    world.plan_price(plan, "12.00", "2026-11-05")
    world.addon_price(addon, "2.00", "2026-11-05")
    world.subscription(world.customer(), plan, date.fromisoformat(starts_on), addons=(addon,))
    (opened,) = world.open()
    assert nets(world, opened) == [net, "1.00" if net == "10.00" else "2.00"]


def test_the_subscriptions_own_price_wins_and_is_net(world: World) -> None:
    world.tax_rate("0.19")
    plan = world.plan("11.90", includes_tax=True)
    world.plan_price(plan, "13.00", "2026-01-01", includes_tax=True)
    world.subscription(world.customer(), plan, price="8.00")
    (opened,) = world.open()
    assert world.rows("SELECT net, tax, total FROM prepaid.invoices") == [
        (Decimal("8.00"), Decimal("1.52"), Decimal("9.52"))
    ]
    assert amounts(world, opened) == (8, 8)


def test_a_price_that_holds_later_only_holds_the_plan(world: World) -> None:
    world.tax_rate("0")
    plan = world.plan(None)
    world.plan_price(plan, "10.00", "2026-11-03")
    addon = world.addon(None)
    world.addon_price(addon, "1.00", "2026-11-03")
    world.subscription(world.customer(), plan, addons=(addon,))
    (opened,) = world.open()
    assert world.holds(opened) == ["no_addon_price", "no_price"]
    texts = world.rows("SELECT text FROM prepaid.holds ORDER BY reason_code")
    assert all("on 2026-11-02" in text for (text,) in texts)
    world.sql("UPDATE prepaid.plan_prices SET valid_from = '2026-11-02' WHERE price IS NOT NULL")
    world.sql("UPDATE prepaid.addon_prices SET valid_from = '2026-11-02'")
    world.sql("UPDATE prepaid.holds SET released_at = now(), released_by = 'test'")
    world.open()
    assert nets(world, opened) == ["10.00", "1.00"]


def test_quantities_multiply_unit_prices(world: World) -> None:
    world.tax_rate("0.10")
    storage = world.addon("1.50")
    world.subscription(world.customer(), world.plan("9.99"), addons=(storage,) * 4, quantity=3)
    (opened,) = world.open()
    d = Decimal
    assert world.rows(LINES, plan=opened) == [
        ("Plan 3", 3, d("9.99"), d("29.97"), 0, d("29.97")),
        ("Add-on 1", 4, d("1.50"), d("6.00"), 0, d("6.00")),
    ]
    assert amounts(world, opened) == (d("35.97"), d("35.97"))


def test_an_orders_price_is_that_of_the_whole_term(world: World) -> None:
    world.tax_rate("0")
    plan = world.plan("11.90", includes_tax=True)
    subscription = world.subscription(world.customer(), plan, date(2026, 8, 2), quantity=3)
    ended = world.term(subscription, date(2026, 8, 2), date(2026, 9, 2), "Expired")
    world.order(ended, TODAY, date(2026, 12, 2), price="25.00")
    (order,) = world.open()
    assert [row[1:] for row in world.rows(LINES, plan=order)] == [(1, 25, 25, 0, 25)]
    # The renewal after it is at the list's price again, for all three.
    renewal = renew(world, date(2026, 12, 1))
    total = "SELECT total FROM prepaid.invoices WHERE service_plan_id = :plan"
    assert world.rows(total, plan=renewal) == [(Decimal("35.70"),)]


def test_a_one_time_addon_that_is_bought_later_is_charged_once(world: World) -> None:
    world.tax_rate("0")
    subscription = world.subscription(world.customer(), world.plan("10.00"))
    (first,) = world.open()
    assert nets(world, first) == ["10.00"]
    set_up = world.addon("49.00", recurring=False)
    world.sql("INSERT INTO prepaid.subscription_addons VALUES (:s, :a)", s=subscription, a=set_up)
    second = renew(world, date(2026, 12, 1))
    assert nets(world, second) == ["10.00", "49.00"]
    assert amounts(world, second) == (59, 10)
    third = renew(world, date(2027, 1, 1))
    assert nets(world, third) == ["10.00"]


def test_a_one_time_addon_of_a_cancelled_term_is_charged_with_the_next(world: World) -> None:
    world.tax_rate("0")
    set_up = world.addon("49.00", recurring=False)
    subscription = world.subscription(world.customer(), world.plan("10.00"), addons=(set_up,))
    ended = world.term(subscription, date(2026, 10, 2), TODAY)
    (cancelled,) = world.open()
    assert nets(world, cancelled) == ["10.00", "49.00"]
    world.cancel(cancelled)
    world.order(ended, date(2026, 11, 3), date(2026, 12, 3))
    assert nets(world, world.open()[-1]) == ["10.00", "49.00"]


def test_a_discount_for_two_terms_counts_imported_ones_and_no_cancelled(world: World) -> None:
    world.tax_rate("0")
    subscription = world.subscription(world.customer(), world.plan("10.00"), date(2026, 9, 2))
    world.term(subscription, date(2026, 8, 2), date(2026, 9, 2), "Cancelled")
    first = world.term(subscription, date(2026, 9, 2), date(2026, 10, 2), "Expired")
    world.discount(subscription, percent="50", terms=2)
    world.discount(subscription, percent="25", starts_on=date(2026, 12, 1), terms=1)
    world.order(first, date(2026, 10, 2), TODAY)
    assert nets(world, world.open(context(date(2026, 10, 2)))[-1]) == ["5.00"]
    # The two terms of the one are over, the other one's only term starts a month later.
    assert nets(world, renew(world, TODAY)) == ["10.00"]
    assert nets(world, renew(world, date(2026, 12, 2))) == ["7.50"]
    assert nets(world, renew(world, date(2027, 1, 2))) == ["10.00"]


def test_only_discounts_for_ever_reduce_recurring_revenue(world: World) -> None:
    world.tax_rate("0")
    addon, fee = world.addon("4.00"), world.addon("20.00", recurring=False)
    customer = world.customer()
    subscription = world.subscription(customer, world.plan("10.00"), addons=(addon, fee))
    world.discount(subscription, percent="10")
    world.discount(subscription, percent="20", terms=1)
    world.discount(subscription, amount="1.00")
    world.discount(subscription, amount="7.00", terms=1)
    (opened,) = world.open()
    # 10.00 less 30 % and 7.00; 4.00 less 30 % and the last 1.00; the fee as it is.
    assert nets(world, opened) == ["0.00", "1.80", "20.00"]
    # For ever: 10.00 less 10 % and 1.00; 4.00 less 10 %.
    assert amounts(world, opened) == (Decimal("21.80"), Decimal("11.60"))


def test_a_discount_of_all_leaves_nothing_to_pay(world: World) -> None:
    world.tax_rate("0.19")
    subscription = world.subscription(world.customer(), world.plan("10.00"), quantity=2)
    world.discount(subscription, percent="60")
    world.discount(subscription, percent="60", terms=1)
    world.discount(subscription, amount="99.00", terms=1)
    (opened,) = world.open()
    assert world.rows("SELECT net, tax, total FROM prepaid.invoices") == [(0, 0, 0)]
    assert world.task(opened) is None
    world.settle()
    assert world.status(opened) == "Active"
    assert amounts(world, opened) == (0, 8)


def test_what_is_granted_later_does_not_change_what_was_asked_for(world: World) -> None:
    world.tax_rate("0")
    subscription = world.subscription(world.customer(), world.plan("10.00"))
    (opened,) = world.open()
    world.discount(subscription, percent="50")
    world.open()
    assert nets(world, opened) == ["10.00"]
    assert nets(world, renew(world, date(2026, 12, 1))) == ["5.00"]


def test_the_rate_is_the_one_of_the_invoice_date(world: World) -> None:
    world.tax_rate("0.19", valid_from="2020-01-01")
    world.tax_rate("0.16", valid_from="2026-11-02")
    world.tax_rate("0.25", valid_from="2026-11-03")
    world.subscription(world.customer(), world.plan(), date(2026, 11, 5))
    world.open()
    assert [str(row[0]) for row in world.rows("SELECT tax FROM prepaid.invoices")] == ["1.60"]


@pytest.mark.parametrize("reason", [None, "Reverse charge"])
def test_an_exempt_customer_pays_the_listed_price_and_reads_why(
    world: World, reason: str | None
) -> None:
    world.tax_rate("0.19")
    customer = world.customer(tax_exempt=True, reason=reason)
    world.subscription(customer, world.plan("119.00", includes_tax=True))
    (opened,) = world.open()
    assert world.rows("SELECT net, tax, total, tax_note FROM prepaid.invoices") == [
        (119, 0, 119, reason or "Tax-exempt customer: no tax charged")
    ]
    assert world.rows("SELECT tax_rate FROM prepaid.invoice_lines") == [(None,)]
    assert amounts(world, opened) == (119, 119)


def test_zero_per_cent_is_a_rate_and_no_exemption(world: World) -> None:
    world.tax_rate("0")
    world.subscription(world.customer(reason="left over"), world.plan("119.00", includes_tax=True))
    world.open()
    assert world.rows("SELECT net, tax, tax_note FROM prepaid.invoices") == [(119, 0, None)]
    assert world.rows("SELECT tax_rate FROM prepaid.invoice_lines") == [(0,)]


def test_a_price_with_tax_needs_a_rate(world: World) -> None:
    """How much of it is net is not guessed."""
    world.subscription(world.customer(), world.plan("119.00", includes_tax=True))
    (opened,) = world.open()
    assert world.holds(opened) == ["no_tax_rate"]
    assert amounts(world, opened) == (None, None)
