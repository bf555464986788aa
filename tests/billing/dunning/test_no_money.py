"""What is no money, and what is on its way: the first stops no reminder, the second for two weeks."""

from datetime import date

import pytest

from prepaid_pipeline.billing import dunning
from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings
from tests.billing.dunning.conftest import day, dun, mails, unpaid
from tests.billing.providers.deliveries import FILES, take
from tests.world import TODAY, World, context

CHECKOUTS = FILES / "unfinished_checkouts.csv"
DECLINED = ("Failed", "canceled", "Cancelled")
UNFINISHED = ("Unfinished", "requires_payment_method", "requires_action", "requires_confirmation")


def reviews(world: World, plan: int) -> list[str]:
    """The status of each review of a plan's records, oldest first."""
    return [
        status
        for (status,) in world.rows(
            "SELECT status FROM prepaid.tasks WHERE kind = 'payment_review'"
            " AND service_plan_id = :plan ORDER BY task_id",
            plan=plan,
        )
    ]


def wrong(world: World) -> list[str]:
    found = invariants.run(world.engine, context())
    return [line for check in found for line in check.findings]


def test_reminders_go_on_as_if_nothing_had_come(world: World) -> None:
    """36 open invoices over 11.90 EUR; the export is about those from 31 on."""
    world.tax_rate("0.19", country="DE")
    euros = world.plan("10.00", currency="EUR")
    for _ in range(36):
        world.subscription(world.customer(country="DE", currency="EUR"), euros)
    world.open()
    assert take(world.engine, CHECKOUTS).unknown == {}
    found = world.match()
    assert (found["matched"], found["parked"], found["waiting"]) == (1, 2, 0)
    plans = dict(
        world.rows(
            "SELECT right(invoice_number, 2), service_plan_id FROM prepaid.invoices"
            " WHERE invoice_number > 'INV-2026-000030'"
        )
    )
    open_reviews = {number: reviews(world, plan) for number, plan in plans.items()}
    assert open_reviews == {
        **{number: [] for number in ("31", "33", "34", "36")},
        **{number: ["Open"] for number in ("32", "35")},
    }
    for number, sent in ((3, 35), (7, 35), (14, 35)):
        assert dun(world, number) == (sent, 0)
    assert dun(world, 31) == (0, 35)
    statuses = {number: world.status(plan) for number, plan in plans.items()}
    assert statuses == {
        **dict.fromkeys(("31", "32", "33", "34", "35"), "Cancelled"),
        "36": "Pending",
    }
    # What nobody has to pay any more is no matter for finance.
    assert reviews(world, plans["35"]) == reviews(world, plans["32"]) == ["Withdrawn"]
    assert wrong(world) == []


def test_no_money_stops_no_reminder(taxed: World) -> None:
    statuses = (*DECLINED, *UNFINISHED)
    plans = unpaid(taxed, len(statuses))
    for plan, status in zip(plans, statuses, strict=True):
        taxed.record(taxed.invoice(plan), status=status)
    assert taxed.match()["waiting"] == 0
    asked = [status for plan, status in zip(plans, statuses, strict=True) if reviews(taxed, plan)]
    assert asked == [*DECLINED]
    number = len(plans)
    assert [dun(taxed, n) for n in (3, 14, 31)] == [(number, 0), (number, 0), (0, number)]
    taxed.match()
    assert {status for plan in plans for status in reviews(taxed, plan)} == {"Withdrawn"}
    assert wrong(taxed) == []


@pytest.mark.parametrize("judged", [False, True])
def test_one_matter_per_invoice_until_it_is_paid(taxed: World, judged: bool) -> None:
    """Three declines and the payment, in any order."""
    words = ("Failed", "Failed", "canceled", "Success")
    orders = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1))
    for plan, order in zip(unpaid(taxed, len(orders)), orders, strict=True):
        for place in order:
            taxed.record(
                taxed.invoice(plan),
                status=words[place],
                provider_ref=f"{plan}-{place}",
                occurred_at=f"2026-11-03T1{place}:00Z",
            )
            if judged:
                taxed.match()
                assert reviews(taxed, plan).count("Open") <= 1
        taxed.match()
        assert "Open" not in reviews(taxed, plan)
    found = taxed.rows("SELECT outcome, count(*) FROM prepaid.transactions GROUP BY 1 ORDER BY 1")
    assert found == [("matched", 3), ("superseded", 9)]
    assert wrong(taxed) == []


def test_a_decline_after_finance_has_closed_the_matter_opens_no_other(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan), status="Failed")
    taxed.match()
    review = taxed.task(plan, "payment_review")
    decisions.decide(taxed.engine, taxed.officer(), [review], "approve", "they know")
    taxed.record(taxed.invoice(plan), status="Failed", occurred_at="2026-11-05T10:00Z")
    taxed.match()
    assert reviews(taxed, plan) == ["Done"]


def test_a_decline_after_the_payment_is_no_matter(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.pay_and_approve(plan)
    taxed.settle()
    taxed.record(taxed.invoice(plan), status="Failed", occurred_at="2026-11-05T10:00Z")
    taxed.match()
    assert (taxed.status(plan), reviews(taxed, plan), taxed.holds(plan)) == ("Active", [], [])


@pytest.mark.parametrize("status", ["Pending", "Settling now"])
def test_what_clears_at_the_bank_has_two_weeks(taxed: World, status: str) -> None:
    """A word that we do not know may mean that as well."""
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan), status=status, occurred_at="2026-11-05T10:00Z")
    assert taxed.match()["waiting"] == 1
    assert [dun(taxed, n) for n in (3, 14, 17)] == [(0, 0)] * 3
    assert dun(taxed, 18) == (1, 0)
    # Another one puts it off again, here beyond the last day to pay.
    taxed.record(taxed.invoice(plan), status=status, occurred_at="2026-12-01T10:00Z")
    taxed.match()
    assert [dun(taxed, n) for n in (31, 43)] == [(0, 0)] * 2
    assert dun(taxed, 44) == (0, 1)


def test_how_long_is_a_setting(taxed: World) -> None:
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan), status="Pending")
    taxed.match()
    assert dun(taxed, 3, clearing_days=3) == (0, 0)
    assert dun(taxed, 4, clearing_days=3) == (1, 0)
    assert dun(taxed, 7, clearing_days=0) == (1, 0)


@pytest.mark.parametrize("moment", ["2199-12-31T10:00Z", "infinity", None])
def test_a_day_that_nobody_believes_puts_nothing_off_for_good(
    taxed: World, moment: str | None
) -> None:
    """It counts from its delivery then."""
    (plan,) = unpaid(taxed)
    taxed.record(taxed.invoice(plan), status="Pending", occurred_at=moment)
    taxed.match()
    delivered = taxed.sql("SELECT received_at::date FROM prepaid.transactions")
    assert isinstance(delivered, date)
    number = (delivered - TODAY).days
    assert dun(taxed, number + 14, payment_days=366) == (0, 0)
    assert dun(taxed, number + 15, payment_days=366) == (1, 0)


def test_a_reminder_is_not_sent_when_a_payment_is_announced_after_it(
    taxed: World, settings: Settings
) -> None:
    announced, expired = unpaid(taxed, 2)
    taxed.record(taxed.invoice(expired), status="Pending", occurred_at="2026-10-01T10:00Z")
    taxed.match()
    assert dunning.remind_unpaid(taxed.engine, day(3)) == 2
    taxed.record(taxed.invoice(announced), status="Pending", occurred_at="2026-11-05T10:00Z")
    taxed.match()
    sent = send_emails(taxed.engine, settings, as_of=day(3).as_of)
    assert sent == SendResult(sent=1, dropped=1)
    assert mails(taxed, announced) == [f"{taxed.invoice(announced)} day 3 dropped"]
    assert mails(taxed, expired) == [f"{taxed.invoice(expired)} day 3 sent"]
