"""Leaving, changing and refunds as people do them, in the figures of the months they belong to."""

from datetime import date
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.billing.subscriptions import Change, Named
from tests.revenue.history import movements, mrr, publish, rows
from tests.world import World, context

D = date
BOUGHT, LEAVES = D(2026, 11, 2), D(2026, 12, 12)


@pytest.fixture
def yearly(world: World) -> tuple[int, int]:
    """A subscription of 120.00 a year and its plan, paid and active from 2 November 2026."""
    world.tax_rate("0.10")
    plan = world.plan("120.00", months=12)
    subscription = world.subscription(world.customer(), plan, started_on=BOUGHT)
    (opened,) = world.open(context(BOUGHT))
    world.pay_and_approve(opened)
    world.settle(context(BOUGHT))
    return subscription, opened


def activations(world: World) -> list[tuple[object, ...]]:
    return rows(
        world.engine,
        "SELECT to_char(month, 'YYYY-MM'), kind, plans, net_amount"
        " FROM revenue.plan_activations ORDER BY 1, 2",
    )


def test_a_cancellation_is_churn_and_a_credit_note(world: World, yearly: tuple[int, int]) -> None:
    care = world.officer("leaving_care", "customer_success")
    subscriptions.cancel(
        world.engine, care, Named(yearly[0], None), "moves away", at_once=True, as_of=LEAVES
    )
    publish(world.engine, "2026-11", "2027-01")
    assert movements(world.engine, "2026-11") == {"new": (1, Decimal("10.00"))}
    assert movements(world.engine, "2026-12") == {"churn": (1, Decimal("-10.00"))}
    assert movements(world.engine, "2027-01") == {}
    assert activations(world) == [("2026-11", "new", 1, Decimal("120.00"))]
    # 325 of 365 days: 106.85 net and 10.68 tax, rounded half up.
    issued = "SELECT month, credit_notes, net, tax, total FROM revenue.credit_notes_issued"
    assert rows(world.engine, issued) == [
        (D(2026, 12, 1), 1, Decimal("106.85"), Decimal("10.68"), Decimal("117.53"))
    ]
    # Finance pays it back in January: both months show it, each in its own table.
    ((number, total),) = world.rows("SELECT credit_note_number, refund FROM prepaid.credit_notes")
    world.record(
        number, total, status="Refunded", provider_ref="back-1", occurred_at="2027-01-04T10:00:00Z"
    )
    world.match(context(D(2027, 1, 4)))
    publish(world.engine, "2026-11", "2027-01")
    back = "SELECT month, kind, records, amount FROM revenue.payment_reversals"
    assert rows(world.engine, back) == [(D(2027, 1, 1), "Refunded", 1, Decimal("117.53"))]


def test_a_change_mid_term_is_an_expansion_and_its_own_kind(
    world: World, yearly: tuple[int, int]
) -> None:
    care = world.officer("leaving_care", "customer_success")
    dearer = world.plan("240.00", months=12)
    code = world.sql("SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=dearer)
    waiting = subscriptions.change(
        world.engine, care, Named(yearly[0], None), Change(code, on=LEAVES), "grows", as_of=LEAVES
    )
    assert waiting is not None
    world.open(context(LEAVES))
    world.pay_and_approve(waiting.service_plan_id)
    world.settle(context(LEAVES))
    publish(world.engine, "2026-11", "2027-01")
    assert movements(world.engine, "2026-12") == {"expansion": (1, Decimal("10.00"))}
    assert mrr(world.engine, "2026-12") == (1, Decimal("20.00"))
    assert activations(world) == [
        ("2026-11", "new", 1, Decimal("120.00")),
        ("2026-12", "change", 1, Decimal("240.00")),
    ]


def test_a_chargeback_leaves_the_revenue_and_shows_in_its_month(
    world: World, yearly: tuple[int, int]
) -> None:
    ref = world.sql("SELECT provider_ref FROM prepaid.transactions")
    world.record(
        world.invoice(yearly[1]),
        "132.00",
        status="Chargeback",
        provider_ref=ref,
        occurred_at="2026-12-03T10:00:00Z",
    )
    world.match(context(D(2026, 12, 3)))
    world.record(
        world.invoice(yearly[1]),
        "132.00",
        status="ChargebackReversed",
        provider_ref=ref,
        occurred_at="2027-01-31T23:30:00Z",
    )
    world.match(context(D(2027, 2, 1)))
    publish(world.engine, "2026-11", "2027-01")
    assert mrr(world.engine, "2026-12") == mrr(world.engine, "2027-01") == (1, Decimal("10.00"))
    back = (
        "SELECT to_char(month, 'YYYY-MM'), kind, amount FROM revenue.payment_reversals ORDER BY 1"
    )
    assert rows(world.engine, back) == [
        ("2026-12", "Chargeback", Decimal("132.00")),
        ("2027-01", "ChargebackReversed", Decimal("-132.00")),
    ]
    # Where the installation is, it is February already.
    world.sql("UPDATE prepaid.installation SET timezone = 'Europe/Berlin'")
    publish(world.engine, "2026-11", "2027-02")
    assert [month for month, *_ in rows(world.engine, back)] == ["2026-12", "2027-02"]
