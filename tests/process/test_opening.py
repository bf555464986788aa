"""Step 0: what is opened, when, as what, and only once."""

from datetime import date, timedelta

import pytest

from prepaid_pipeline.process import steps
from tests.world import TODAY, World, context


@pytest.fixture(autouse=True)
def _tax(world: World) -> None:
    world.tax_rate("0.0725")


def opened(world: World) -> list[tuple[object, ...]]:
    return world.rows(
        "SELECT kind, start_date, end_date FROM prepaid.service_plans"
        " WHERE origin = 'pipeline' ORDER BY service_plan_id"
    )


@pytest.mark.parametrize(("days", "due"), [(-8, 0), (-7, 1), (0, 1), (7, 1), (8, 0)])
def test_the_window_of_grace_and_lead_days(world: World, days: int, due: int) -> None:
    world.due_renewal(TODAY + timedelta(days=days))
    assert steps.open_service_plans(world.engine, context()) == due


@pytest.mark.parametrize(
    ("term_days", "days", "due"),
    [(7, 3, 1), (7, 4, 0), (7, -3, 1), (7, -4, 0), (30, 7, 1), (1, 0, 1)],
)
def test_lead_and_grace_of_terms_in_days_are_half_the_term_at_most(
    world: World, term_days: int, days: int, due: int
) -> None:
    ends = TODAY + timedelta(days=days)
    start = ends - timedelta(days=term_days)
    subscription = world.subscription(world.customer(), world.plan(days=term_days), start)
    world.term(subscription, start, ends)
    assert steps.open_service_plans(world.engine, context()) == due


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({"auto_renew": False}, 0),
        ({"cancelled_on": TODAY}, 0),
        ({"cancelled_on": date(2026, 10, 15)}, 0),
        ({"cancelled_on": date(2027, 6, 1)}, 1),
    ],
)
def test_who_does_not_renew(world: World, change: dict[str, object], due: int) -> None:
    start = date(2026, 10, 2)
    subscription = world.subscription(world.customer(), world.plan(), start, **change)  # type: ignore[arg-type]
    world.term(subscription, start, TODAY)
    assert steps.open_service_plans(world.engine, context()) == due


def test_a_renewal_starts_where_the_term_ended_and_keeps_its_anchor(world: World) -> None:
    """31 Jan -> 28 Feb -> 31 Mar: counted from the anchor, never from the previous start."""
    subscription = world.subscription(world.customer(), world.plan(), date(2026, 1, 31))
    world.term(subscription, date(2026, 1, 31), date(2026, 2, 28))
    world.open(context(date(2026, 2, 28)))
    assert opened(world) == [("renewal", date(2026, 2, 28), date(2026, 3, 31))]


def test_a_purchase_is_new_and_starts_today_at_the_earliest(world: World) -> None:
    plan = world.plan()
    world.subscription(world.customer(), plan, date(2026, 10, 20))
    world.subscription(world.customer(), plan, date(2026, 11, 5))
    world.subscription(world.customer(), plan, date(2026, 11, 10))
    assert steps.open_service_plans(world.engine, context()) == 2
    assert opened(world) == [
        ("new", TODAY, date(2026, 12, 2)),
        ("new", date(2026, 11, 5), date(2026, 12, 5)),
    ]


def test_an_order_of_a_returning_customer_is_invoiced_at_its_own_price(world: World) -> None:
    subscription = world.subscription(world.customer(), world.plan(), date(2025, 1, 1))
    old = world.term(subscription, date(2025, 1, 1), date(2025, 2, 1), status="Expired")
    world.order(old, date(2026, 11, 5), date(2026, 12, 5), price="7.77")
    (plan,) = world.open()
    assert [str(x) for x in world.rows("SELECT net FROM prepaid.invoices")[0]] == ["7.77"]
    world.pay_and_approve(plan)
    world.settle()
    assert opened(world) == [("reactivation", date(2026, 11, 5), date(2026, 12, 5))]


def test_each_is_opened_once(world: World) -> None:
    world.due_renewal()
    world.subscription(world.customer(), world.plan())
    assert steps.open_service_plans(world.engine, context()) == 2
    assert steps.open_service_plans(world.engine, context()) == 0
    (first, _) = world.open()
    world.cancel(first)
    assert steps.open_service_plans(world.engine, context()) == 0


def test_one_subscription_that_cannot_be_opened_stops_no_other(world: World) -> None:
    """The table is made to refuse one subscription, as a fault in its data would."""
    plan = world.plan()
    subscriptions = [world.subscription(world.customer(), plan) for _ in range(5)]
    world.sql(
        f"ALTER TABLE prepaid.service_plans ADD CHECK (subscription_id <> {subscriptions[2]})"
    )
    assert steps.open_service_plans(world.engine, context()) == 4
    assert world.rows(
        "SELECT entity_id, detail LIKE '%violates check constraint%' FROM prepaid.audit_log"
        " WHERE event = 'opening_failed'"
    ) == [(subscriptions[2], True)]
