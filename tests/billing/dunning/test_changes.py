"""Changes of plan that nobody pays, and invoices that finance issues anew."""

from datetime import date, timedelta

import pytest

from prepaid_pipeline.billing import dunning, subscriptions
from prepaid_pipeline.billing import invoices as documents
from prepaid_pipeline.billing.subscriptions import Change, Named
from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from prepaid_pipeline.settings.load import Settings
from tests.billing.dunning.conftest import day, dun, mails, unpaid
from tests.billing.dunning.test_mails import bodies, sent
from tests.world import TODAY, World, context

ENDS = date(2026, 12, 2)  # of the running term, which began on 2 November


def changing(world: World, on: date) -> tuple[int, int]:
    """A term of 30.00 and its invoiced change to 60.00; the subscription and the change."""
    subscription = world.subscription(world.customer(), world.plan("30.00"))
    (running,) = world.open()
    world.pay_and_approve(running)
    world.settle()
    code = world.sql(
        "SELECT plan_code FROM prepaid.plans WHERE plan_id = :p", p=world.plan("60.00")
    )
    waiting = subscriptions.change(
        world.engine,
        world.officer("dunning_care", "customer_success"),
        Named(subscription, None),
        Change(code, on=on),
        "grows",
        as_of=on,
    )
    assert waiting is not None
    world.open(context(on))
    return subscription, waiting.service_plan_id


def daily(world: World, on: date, **other: object) -> None:
    """A day as the schedules run it: opening first, dunning at ten."""
    at = context(on, **other)  # type: ignore[arg-type]
    world.open(at)
    steps.expire_service_plans(world.engine, at)
    dunning.remind_unpaid(world.engine, at)
    dunning.cancel_unpaid(world.engine, at)


@pytest.mark.parametrize("payment_days", [30, None])
@pytest.mark.parametrize("grace_days", [7, 0])
def test_a_change_makes_way_for_the_renewal(
    taxed: World, settings: Settings, payment_days: int | None, grace_days: int
) -> None:
    subscription, change = changing(taxed, date(2026, 11, 12))
    before = taxed.plans()
    with_rules = {"payment_days": payment_days, "grace_days": grace_days}
    for n in range(11, 29):
        daily(taxed, TODAY + timedelta(days=n), **with_rules)
        assert taxed.status(change) == "Pending"
    number = taxed.invoice(change)
    daily(taxed, date(2026, 12, 1), **with_rules)
    assert taxed.status(change) == "Cancelled"
    assert mails(taxed, change) == [f"{number} day 3", f"{number} day 7", f"{number} day 14"]
    daily(taxed, ENDS, **with_rules)
    (renewal,) = set(taxed.plans()) - set(before)
    assert taxed.rows(
        "SELECT p.kind, p.status, p.start_date, l.plan_id = s.plan_id, i.net"
        " FROM prepaid.service_plans p JOIN prepaid.plans l USING (plan_id)"
        " JOIN prepaid.subscriptions s USING (subscription_id)"
        " JOIN prepaid.invoices i USING (service_plan_id) WHERE p.service_plan_id = :p",
        p=renewal,
    ) == [("renewal", "Pending", ENDS, True, 30)]
    for on in (ENDS, ENDS + timedelta(days=20)):
        results = invariants.run(taxed.engine, context(on))
        assert [finding for result in results for finding in result.findings] == []
    assert subscription

    assert send_emails(taxed.engine, settings, as_of=ENDS) == SendResult(sent=2, dropped=3)
    for body in bodies(sent(settings)[1]):
        assert "continues as it was" in body
        assert "order again" not in body


def test_the_reminder_names_the_earlier_last_day(taxed: World, settings: Settings) -> None:
    _, change = changing(taxed, date(2026, 11, 12))
    daily(taxed, date(2026, 11, 15))
    assert taxed.status(change) == "Pending"
    send_emails(taxed.engine, settings, as_of=ENDS)
    for body in bodies(sent(settings)[1]):
        assert "arrived by 30 November 2026, we will cancel this order" in body
        assert "your plan will not be changed" in body
        assert "42.90 USD" in body, "64.35 less the credit of 21.45"


def test_a_change_just_before_the_end_has_its_own_day(taxed: World) -> None:
    _, change = changing(taxed, date(2026, 12, 1))
    daily(taxed, date(2026, 12, 1))
    assert taxed.status(change) == "Pending"
    daily(taxed, ENDS)
    assert taxed.status(change) == "Cancelled"


def test_an_invoice_that_finance_issues_anew_starts_anew(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    number = taxed.invoice(plan)
    assert dun(taxed, 7) == (1, 0)
    documents.void(
        taxed.engine,
        taxed.officer(),
        number,
        "the address was wrong",
        reissue=True,
        as_of=day(10).as_of,
    )
    assert dun(taxed, 40) == (0, 0), "nothing is asked for until there is the new invoice"
    taxed.open(day(10))
    again = taxed.invoice(plan)
    assert again != number
    assert dun(taxed, 12) == (0, 0)
    assert dun(taxed, 13) == (1, 0)
    assert mails(taxed, plan) == [f"{number} day 7", f"{again} day 3"]
    assert dun(taxed, 40) == (1, 0)
    assert dun(taxed, 41) == (0, 1)
