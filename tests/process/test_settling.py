"""From an invoice that waits to an active plan: whatever comes last makes it ready."""

from datetime import date

import pytest
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import accounts, decisions
from tests.world import TODAY, World, context


@pytest.fixture
def plan(world: World) -> int:
    """One renewal of 10.00 + 7.25 % tax, invoiced and waiting."""
    return invoiced(world)


def invoiced(world: World) -> int:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    return plan


def test_record_and_approval_activate_the_plan(world: World, plan: int) -> None:
    world.pay_and_approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    assert [str(row) for row in world.rows("SELECT net, tax, total FROM prepaid.invoices")] == [
        "(Decimal('10.00'), Decimal('0.73'), Decimal('10.73'))"
    ]
    assert world.rows("SELECT template, recipient, status FROM prepaid.emails") == [
        ("activation_confirmation", "someone@example.com", "pending")
    ]
    assert world.rows(
        "SELECT event FROM prepaid.audit_log WHERE service_plan_id = :p ORDER BY audit_id", p=plan
    ) == [
        (event,)
        for event in (
            "service_plan_opened",
            "service_plan_processing",
            "invoice_open",
            "service_plan_pending",
            "transaction_matched",
            "task_decided",
            "invoice_paid",
            "service_plan_active",
            "service_provisioned",
        )
    ]
    assert world.task(plan, "quality_check") is not None


@pytest.mark.parametrize("what_comes", ["nothing", "record", "approval"])
def test_one_of_the_two_is_not_enough(world: World, plan: int, what_comes: str) -> None:
    """And an approval cannot come first: it would have no effect."""
    if what_comes == "record":
        world.pay(plan)
    if what_comes == "approval":
        with pytest.raises(NotAllowed, match="there is nothing to approve: no record"):
            world.approve(plan)
    world.settle()
    assert world.status(plan) == "Pending"


def test_rejection_holds_and_release_asks_again(world: World, plan: int) -> None:
    world.record(world.invoice(plan))
    world.match()
    world.approve(plan, word="reject", note="the bank says the account is blocked")
    first_task = world.task(plan)
    assert world.holds(plan) == ["payment_rejected"]
    world.settle()
    assert world.status(plan) == "Pending"

    decisions.release(world.engine, world.officer("test_clerk"), plan, "the account is open again")
    assert world.task(plan) > first_task
    assert world.rows("SELECT status FROM prepaid.tasks WHERE task_id = :t", t=first_task) == [
        ("Withdrawn",)
    ]
    world.approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    assert world.sql("SELECT count(*) FROM prepaid.sign_offs") == 2


def test_a_later_approval_replaces_a_rejection(world: World, plan: int) -> None:
    world.record(world.invoice(plan))
    world.match()
    world.approve(plan, word="reject", note="not on the statement")
    world.approve(plan)
    assert world.holds(plan) == []
    world.settle()
    assert world.status(plan) == "Active"
    assert world.rows("SELECT decision FROM prepaid.sign_offs ORDER BY sign_off_id") == [
        ("rejected",),
        ("approved",),
    ]


def test_after_payment_the_decision_stays(world: World, plan: int) -> None:
    world.pay_and_approve(plan)
    world.settle()
    with pytest.raises(accounts.NotAllowed, match="is already Paid"):
        world.approve(plan, word="reject", note="too late")
    assert world.holds(plan) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": "10.72"}, "paid 10.72, invoiced 10.73"),
        ({"currency": "EUR"}, "paid in EUR, invoiced in USD"),
        ({"status": "Failed"}, "the record says Failed"),
        ({"invoice_number": "INV-1999-000001"}, "there is no invoice INV-1999-000001"),
        ({"invoice_number": None}, "the record names no invoice"),
        ({"customer_ref": "C999"}, "the record names customer C999, the invoice C1"),
    ],
)
def test_what_does_not_fit_is_parked_for_finance(
    world: World, plan: int, changes: dict[str, str], reason: str
) -> None:
    world.record(**{"invoice_number": world.invoice(plan), "amount": "10.73", **changes})
    assert world.match() == {"matched": 0, "parked": 1, "superseded": 0, "waiting": 0}
    assert world.rows("SELECT outcome, outcome_reason FROM prepaid.transactions") == [
        ("parked", reason)
    ]
    assert world.sql("SELECT count(*) FROM prepaid.tasks WHERE kind = 'payment_review'") == 1
    with pytest.raises(NotAllowed, match="there is nothing to approve"):
        world.approve(plan)
    world.settle()
    assert world.status(plan) == "Pending"


def test_pending_and_unknown_words_wait_and_success_supersedes_them(
    world: World, plan: int
) -> None:
    number = world.invoice(plan)
    world.record(number, provider_ref="p1", status="Pending", occurred_at="2026-11-02T08:00Z")
    world.record(number, provider_ref="p1", status="in_clearing", occurred_at="2026-11-02T09:00Z")
    assert world.match()["waiting"] == 2
    world.record(number, provider_ref="p1", occurred_at="2026-11-02T10:00Z")
    assert world.match()["matched"] == 1
    assert world.rows("SELECT outcome FROM prepaid.transactions ORDER BY occurred_at") == [
        ("superseded",),
        ("superseded",),
        ("matched",),
    ]


def test_the_same_event_again_is_dropped_another_content_is_parked(world: World, plan: int) -> None:
    number = world.invoice(plan)
    event = {"provider_ref": "p1", "occurred_at": "2026-11-02T10:00Z"}
    assert world.record(number, "10.73", **event) is not None
    assert world.record(number, "10.73", **event) is None
    assert world.record(number, "99.00", **event) is not None
    assert world.match() == {"matched": 1, "parked": 1, "superseded": 0, "waiting": 0}


def test_one_record_pays_one_invoice(world: World) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.due_renewal()
    first, second = world.open()
    world.record(world.invoice(first), provider_ref="p1")
    world.record(world.invoice(second), provider_ref="p1")
    assert world.match() == {"matched": 1, "parked": 1, "superseded": 0, "waiting": 0}


def test_two_records_for_one_invoice(world: World, plan: int) -> None:
    world.record(world.invoice(plan))
    world.record(world.invoice(plan))
    assert world.match() == {"matched": 1, "parked": 1, "superseded": 0, "waiting": 0}
    world.record(world.invoice(plan))
    assert world.match() == {"matched": 0, "parked": 1, "superseded": 0, "waiting": 0}


def test_nothing_to_pay_needs_no_record_and_no_approval(world: World) -> None:
    world.tax_rate("0.0725")
    world.subscription(world.customer(), world.plan(price="0.00"))
    (plan,) = world.open()
    assert world.task(plan) is None
    world.settle()
    assert world.status(plan) == "Active"
    (detail,) = world.rows(
        "SELECT detail FROM prepaid.audit_log WHERE event = 'payment_not_required'"
    )
    assert detail == ("Invoice INV-2026-000001 is over 0 USD: no payment, no verification",)


@pytest.mark.parametrize(
    ("activated_on", "kind", "start"),
    [
        (date(2026, 11, 9), "renewal", TODAY),
        (date(2026, 11, 10), "reactivation", date(2026, 11, 10)),
    ],
)
def test_grace_decides_renewal_or_reactivation(
    world: World, plan: int, activated_on: date, kind: str, start: date
) -> None:
    """Ended on 2 November, 7 days of grace: the 9th is in time, the 10th is not."""
    world.pay_and_approve(plan)
    world.settle(context(activated_on))
    assert world.rows(
        "SELECT kind, start_date, end_date, activated_on FROM prepaid.service_plans"
        " WHERE service_plan_id = :p",
        p=plan,
    ) == [(kind, start, date(2026, 12, start.day), activated_on)]


def test_an_overlapping_term_is_held(world: World, plan: int) -> None:
    subscription = world.sql(
        "SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
    )
    world.pay_and_approve(plan)
    world.term(subscription, date(2026, 11, 20), date(2026, 12, 20), previous=plan)
    world.settle()
    assert world.holds(plan) == ["overlapping_term"]
    assert world.status(plan) == "Pending"


@pytest.fixture(scope="module")
def unchanged(module_world: World) -> World:
    """A plan that waits, for those who change nothing."""
    invoiced(module_world)
    return module_world


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE prepaid.service_plans SET status = 'Active' WHERE origin = 'pipeline'",
        "UPDATE prepaid.service_plans SET status = 'Expired' WHERE origin = 'pipeline'",
        "UPDATE prepaid.service_plans SET status = 'Processing' WHERE origin = 'pipeline'",
        "UPDATE prepaid.invoices SET status = 'Paid', paid_on = '2026-11-02'",
        "UPDATE prepaid.invoices SET total = 1, net = 1, tax = 0",
        "UPDATE prepaid.invoice_lines SET net = 1",
        "DELETE FROM prepaid.invoices",
        "DELETE FROM prepaid.audit_log",
        "UPDATE prepaid.audit_log SET actor = 'nobody'",
        "TRUNCATE prepaid.audit_log",
        "TRUNCATE prepaid.sign_offs",
    ],
)
def test_the_database_refuses(unchanged: World, forbidden: str) -> None:
    with pytest.raises(DBAPIError, match=r"cannot|append-only|is issued"):
        unchanged.sql(forbidden)
