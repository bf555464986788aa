"""Invoices voided and reissued by finance, and the list of open ones."""

import csv
import io
from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest

from prepaid_pipeline.billing import invoices
from prepaid_pipeline.csv_safety import harmless
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.billing.subscriptions.test_cancelling import charge_back, sound
from tests.world import TODAY, World, context

Person = Callable[[World, str], str]


@pytest.fixture
def officer(world: World, person: Person) -> str:
    world.tax_rate("0.0725")
    return person(world, "finance")


def purchase(world: World, **other: object) -> tuple[int, str]:
    """A plan that waits for its payment, and its invoice."""
    known = set(world.plans())
    world.subscription(world.customer(), world.plan(), **other)  # type: ignore[arg-type]
    (plan,) = (p for p in world.open() if p not in known)
    return plan, world.invoice(plan)


def void(world: World, officer: str, number: str, *, reissue: bool = False) -> int:
    return invoices.void(world.engine, officer, number, "wrong plan", reissue=reissue, as_of=TODAY)


def test_void_holds_until_somebody_decides(world: World, officer: str) -> None:
    plan, number = purchase(world)
    world.record(number)
    world.match()
    world.approve(plan)
    assert void(world, officer, number) == plan
    assert world.holds(plan) == ["invoice_voided"]
    assert world.rows("SELECT status, transaction_id FROM prepaid.invoices") == [("Void", None)]
    assert world.rows("SELECT outcome, outcome_reason FROM prepaid.transactions") == [
        ("parked", f"invoice {number} is void")
    ]
    assert world.rows("SELECT status FROM prepaid.tasks WHERE kind = 'payment_review'") == [
        ("Open",)
    ]
    world.open()
    world.settle()
    assert (world.status(plan), world.invoice(plan)) == ("Pending", None)
    sound(world)

    decisions.release(world.engine, officer, plan, "right after all")
    world.open()
    assert world.invoice(plan) == "INV-2026-000002"
    world.pay_and_approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    sound(world)


def test_reissue_takes_what_the_subscription_has_now(world: World, officer: str) -> None:
    plan, number = purchase(world)
    decisions.decide(world.engine, officer, [world.task(plan)], "reject", "wrong amount")
    year, addon = world.plan("100.00", months=12), world.addon("5.00", months=12)
    world.sql("UPDATE prepaid.subscriptions SET plan_id = :y", y=year)
    world.sql(
        "INSERT INTO prepaid.subscription_addons SELECT subscription_id, :a"
        " FROM prepaid.subscriptions",
        a=addon,
    )
    void(world, officer, number, reissue=True)
    assert world.holds(plan) == []
    assert world.sql("SELECT count(*) FROM prepaid.charges") == 0
    world.open()
    assert world.rows(
        "SELECT i.invoice_number, i.net, p.end_date, p.price FROM prepaid.invoices i"
        " JOIN prepaid.service_plans p USING (service_plan_id) WHERE i.status = 'Open'"
    ) == [("INV-2026-000002", Decimal("105.00"), date(2027, 11, 2), Decimal("100.00"))]
    world.pay_and_approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    assert world.rows(
        "SELECT event, actor FROM prepaid.audit_log WHERE event IN ('invoice_void',"
        " 'invoice_reissue_requested')"
    ) == [("invoice_void", officer), ("invoice_reissue_requested", officer)]
    sound(world)


def test_an_order_keeps_the_price_that_was_agreed(world: World, officer: str) -> None:
    subscription = world.subscription(world.customer(), world.plan("10.00"), date(2025, 1, 1))
    old = world.term(subscription, date(2025, 1, 1), date(2025, 2, 1), status="Expired")
    world.order(old, date(2026, 11, 5), date(2026, 12, 5), price="7.77")
    (plan,) = world.open()
    void(world, officer, world.invoice(plan), reissue=True)
    world.open()
    assert world.rows("SELECT net, status FROM prepaid.invoices ORDER BY invoice_id") == [
        (Decimal("7.77"), "Void"),
        (Decimal("7.77"), "Open"),
    ]


def test_what_cannot_be_voided(world: World, officer: str, person: Person) -> None:
    plan, number = purchase(world)
    with pytest.raises(NotAllowed, match="there is no invoice INV-1999-000001"):
        void(world, officer, "INV-1999-000001")
    with pytest.raises(NotAllowed, match=r"may not void invoices: not in finance"):
        void(world, person(world, "customer_success"), number)
    with pytest.raises(NotAllowed, match="to void invoices needs a note that says why"):
        invoices.void(world.engine, officer, number, " ")
    world.pay_and_approve(plan)
    world.settle()
    with pytest.raises(
        NotAllowed, match=f"invoice {number} is Paid: only an open one can be voide"
    ):
        void(world, officer, number)
    charge_back(world, plan)
    with pytest.raises(
        NotAllowed, match=f"service plan {plan} of invoice {number} is active, although"
    ):
        void(world, officer, number)


def test_a_voided_invoice_is_not_paid_by_the_batch_that_had_it(world: World, officer: str) -> None:
    """Between the steps of a settling run: it goes on with nothing, and the plan is free again."""
    plan, number = purchase(world)
    world.pay_and_approve(plan)
    batch = steps.claim(world.engine, "settle_renewals", context())
    assert batch is not None
    steps.run_step(world.engine, "check_payment_status", batch, context())
    void(world, officer, number, reissue=True)
    for step in steps.QUEUES["settle_renewals"][1:]:
        steps.run_step(world.engine, step, batch, context())
    assert world.status(plan) == "Pending"
    world.open()
    assert world.rows("SELECT invoice_number, status FROM prepaid.invoices ORDER BY 1") == [
        (number, "Void"),
        ("INV-2026-000002", "Open"),
    ]


def test_the_list(world: World, officer: str) -> None:
    plan, number = purchase(world)
    _, later = purchase(world, started_on=date(2026, 11, 9))
    paid, _ = purchase(world)
    world.pay_and_approve(paid)
    world.settle()
    world.record(number, "4.00")
    world.match()
    decisions.decide(world.engine, officer, [world.task(plan)], "reject", "too little")
    rows = invoices.listed(world.engine, date(2026, 11, 12))
    keys = ("invoice_number", "due_on", "days_overdue", "payable", "received", "held")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (number, TODAY, 10, Decimal("10.73"), Decimal("4.00"), "payment_rejected"),
        (later, date(2026, 11, 9), 3, Decimal("10.73"), Decimal("0"), None),
    ]
    assert [row["status"] for row in invoices.listed(world.engine, TODAY, "Paid")] == ["Paid"]
    assert len(invoices.listed(world.engine, TODAY, None)) == 3
    assert invoices.listed(world.engine, TODAY)[1]["days_overdue"] == 0


def test_the_list_counts_what_was_assigned(world: World, officer: str) -> None:
    """A record that named no invoice, or another one, has come for the one it was assigned to."""
    _, number = purchase(world)
    record = world.record("no such number", "10.73")
    assert record is not None
    world.match()
    decisions.assign(world.engine, officer, record, number, "the customer called")
    (row,) = invoices.listed(world.engine, TODAY)
    assert (row["invoice_number"], row["received"]) == (number, Decimal("10.73"))


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\uff1d1"]
)
def test_a_text_that_a_spreadsheet_would_run(name: str) -> None:
    assert harmless(name) == f"'{name}"
    assert harmless(f"Ann {name}") == f"Ann {name}"
    written = io.StringIO()
    csv.writer(written).writerow([harmless(name)])
    assert next(csv.reader(io.StringIO(written.getvalue()))) == [f"'{name}"]
