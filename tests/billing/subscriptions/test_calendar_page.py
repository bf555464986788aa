"""docs/calendar.md: each of its tables with examples, run."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from dateutil.relativedelta import relativedelta

from prepaid_pipeline.importer import terms
from prepaid_pipeline.process import steps
from tests.billing.subscriptions.test_cancelling import cancel
from tests.billing.subscriptions.test_changing import change, settle
from tests.process.test_business_days import local_day
from tests.process.test_calendar import starts
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]
TEXT = (Path(__file__).parents[3] / "docs" / "calendar.md").read_text(encoding="utf-8")


def table(first_title: str) -> list[list[str]]:
    """The rows of the table whose first column has this title."""
    found = re.search(rf"^\| {first_title} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found is not None, first_title
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def day(text: str) -> date:
    return date.fromisoformat(text)


@pytest.mark.parametrize(("zone", "moment", "expected"), table("time zone"))
def test_business_dates(module_world: World, zone: str, moment: str, expected: str) -> None:
    at = datetime.fromisoformat(moment).astimezone(UTC)
    assert local_day(module_world, zone, at) == day(expected)


@pytest.mark.parametrize(("anchor", "term", "expected"), table("anchor"))
def test_terms(module_world: World, anchor: str, term: str, expected: str) -> None:
    length = terms.parse(term)
    wanted = [day(text) for text in expected.split(", ")]
    found = starts(module_world, day(anchor), length.months, length.days, len(wanted))
    assert found[1:] == wanted


@pytest.mark.parametrize(("ends", "grace", "paid", "kind", "starts_on"), table("term ends"))
def test_grace(world: World, ends: str, grace: str, paid: str, kind: str, starts_on: str) -> None:
    world.tax_rate("0.0725")
    plan = world.plan()
    start = day(ends) - relativedelta(months=1)
    subscription = world.subscription(world.customer(), plan, start)
    world.term(subscription, start, day(ends))
    (renewal,) = world.open(context(day(ends) - timedelta(3), int(grace)))
    world.pay_and_approve(renewal)
    world.settle(context(day(paid), int(grace)))
    assert world.rows(
        "SELECT kind, start_date, end_date, anchor_date, status FROM prepaid.service_plans"
        " WHERE service_plan_id = :p",
        p=renewal,
    ) == [
        (
            kind,
            day(starts_on),
            day(starts_on) + relativedelta(months=1),
            start if kind == "renewal" else day(starts_on),
            "Active",
        )
    ]


def bought(world: World, price: str, addon: str = "", fee: str = "") -> int:
    """A paid term from 2 November to 2 December 2026."""
    world.tax_rate("0.0725")
    addons = [world.addon(addon)] if addon else []
    addons += [world.addon(fee, recurring=False)] if fee else []
    subscription = world.subscription(world.customer(), world.plan(price), addons=tuple(addons))
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    assert world.rows("SELECT start_date, end_date FROM prepaid.service_plans") == [
        (TODAY, date(2026, 12, 2))
    ]
    return subscription


@pytest.mark.parametrize("row", table("price"), ids=" ".join)
def test_credit(world: World, person: Person, row: list[str]) -> None:
    price, addon, fee, on, unused, net, tax, refund = row
    subscription = bought(world, price, addon, fee)
    assert (date(2026, 12, 2) - day(on)).days == int(unused)
    cancel(world, person(world, "finance"), subscription, as_of=day(on))
    assert world.rows("SELECT net, tax, refund FROM prepaid.credit_notes") == [
        (Decimal(net), Decimal(tax), Decimal(refund))
    ]


@pytest.mark.parametrize("row", table("new price"), ids=" ".join)
def test_change(world: World, person: Person, row: list[str]) -> None:
    price, from_day, ends, total, credit, payable, refund = row
    subscription = bought(world, "30.00")
    on = day(from_day)
    waiting = change(
        world, person(world, "customer_success"), subscription, world.plan(price), on, on
    )
    assert waiting is not None
    world.open(context(on))
    plan = waiting.service_plan_id
    assert world.rows(
        "SELECT i.total, i.credit, i.payable, p.end_date FROM prepaid.invoices i"
        " JOIN prepaid.service_plans p USING (service_plan_id) WHERE service_plan_id = :p",
        p=plan,
    ) == [(Decimal(total), Decimal(credit), Decimal(payable), day(ends))]
    if Decimal(payable):
        settle(world, plan, on)
    else:
        world.settle(context(on))
    assert world.sql("SELECT refund FROM prepaid.credit_notes") == Decimal(refund)
    assert steps.open_service_plans(world.engine, context(date(2026, 12, 2))) == 0 or day(
        ends
    ) <= date(2026, 12, 9)
