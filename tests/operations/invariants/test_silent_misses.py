"""A renewal that nobody dealt with is listed, however the term before came to its end."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from prepaid_pipeline.billing import dunning, subscriptions
from prepaid_pipeline.billing.subscriptions import Named
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.billing.subscriptions.test_cancelling import active, cancel
from tests.billing.subscriptions.test_changing import change
from tests.people.conftest import person
from tests.world import TODAY, World, context

__all__ = ["person"]
Person = Callable[[World, str], str]
END = date(2026, 12, 2)
LATER = END + timedelta(8)  # after the days of grace


@pytest.fixture
def officer(world: World, person: Person) -> str:
    world.tax_rate("0.0725")
    return person(world, "finance")


def missed(world: World, as_of: date = LATER) -> list[str]:
    found = {check.name: check.findings for check in invariants.run(world.engine, context(as_of))}
    return found["07_no_silent_misses"]


def renewal(world: World, day: date = END) -> int:
    return max(world.open(context(day)))


def test_nothing_followed(world: World, officer: str) -> None:
    active(world)
    steps.expire_service_plans(world.engine, context(LATER))
    assert missed(world, END + timedelta(7)) == []
    assert missed(world) == ["subscription S3: its term ended on 2026-12-02 and nothing followed"]


def test_a_renewal_that_waits_or_was_not_paid_for_was_dealt_with(
    world: World, officer: str
) -> None:
    active(world)
    plan = renewal(world)
    assert missed(world) == []
    late = context(END + timedelta(20), payment_days=15)
    assert dunning.cancel_unpaid(world.engine, late) == 1
    assert world.status(plan) == "Cancelled"
    assert missed(world, late.as_of) == []


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("opened", [False, True])
def test_leaving_and_taking_it_back(
    world: World, officer: str, at_once: bool, opened: bool
) -> None:
    subscription, _ = active(world)
    day = date(2026, 11, 28)
    if opened:
        renewal(world, day)
    cancel(world, officer, subscription, as_of=day, at_once=at_once)
    assert missed(world) == []
    # The customer stays after all, and nobody does anything more about it.
    world.sql("UPDATE prepaid.subscriptions SET cancelled_on = NULL")
    said = "was cancelled at once on 2026-11-28" if at_once else "ended on 2026-12-02"
    assert missed(world) == [f"subscription S3: its term {said} and nothing followed"]


def test_a_purchase_that_is_taken_back_and_wanted_again(world: World, officer: str) -> None:
    subscription = world.subscription(world.customer(), world.plan())
    (plan,) = world.open()
    cancel(world, officer, subscription)
    assert steps.open_service_plans(world.engine, context()) == 0
    world.sql("UPDATE prepaid.subscriptions SET cancelled_on = NULL")
    assert steps.open_service_plans(world.engine, context()) == 1
    assert max(world.open()) > plan


def test_a_change_that_nobody_paid_for(world: World, officer: str) -> None:
    """The old term's renewal was cancelled for it; it is opened again, or listed."""
    subscription, _ = active(world, "30.00")
    day = date(2026, 11, 28)
    first = renewal(world, day)
    waiting = change(world, officer, subscription, world.plan("60.00"), day, day)
    assert waiting is not None
    world.open(context(day))
    assert missed(world) == []
    late = context(day + timedelta(16), payment_days=15)
    assert dunning.cancel_unpaid(world.engine, late) == 1
    assert (world.status(first), world.status(waiting.service_plan_id)) == ("Cancelled",) * 2
    assert missed(world, late.as_of) == [
        "subscription S3: its term ended on 2026-12-02 and nothing followed"
    ]
    assert steps.open_service_plans(world.engine, context(END)) == 1


def test_a_change_that_runs_renews_once(world: World, officer: str) -> None:
    subscription, _ = active(world, "30.00")
    day = date(2026, 11, 12)
    waiting = change(world, officer, subscription, world.plan("60.00"))
    assert waiting is not None
    world.open(context(day))
    world.pay_and_approve(waiting.service_plan_id)
    world.settle(context(day))
    steps.expire_service_plans(world.engine, context(LATER))
    assert missed(world, date(2026, 12, 19)) == []
    assert missed(world, date(2026, 12, 20)) == [
        "subscription S3: its term ended on 2026-12-12 and nothing followed"
    ]


def test_a_plan_is_named_whose_customer_was_cancelled_on_its_first_day(
    world: World, officer: str
) -> None:
    subscription, _ = active(world)
    subscriptions.cancel(
        world.engine, officer, Named(subscription, None), "x", at_once=True, as_of=TODAY
    )
    assert missed(world) == []
