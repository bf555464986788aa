"""What finance does about parked records: suggestions, assigning, refunds that were asked for."""

import pytest

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from tests.world import World, context


@pytest.fixture
def plans(world: World) -> list[int]:
    """Two renewals of 10.73 in all, invoiced and waiting, of the customers C1 and C4."""
    world.tax_rate("0.0725")
    world.due_renewal()
    world.due_renewal()
    return world.open()


def findings(world: World) -> list[str]:
    return [line for check in invariants.run(world.engine, context()) for line in check.findings]


def suggested(world: World) -> list[tuple[str, str]]:
    return world.rows("SELECT invoice_number, because FROM prepaid.payment_suggestions ORDER BY 1")


@pytest.mark.parametrize(
    ("number", "customer", "because"),
    [
        ("INV-2026-000010", None, "same amount; the number: two digits exchanged"),
        ("inv 2026 000001", None, "same amount; the number: written differently"),
        ("INV-2026-000901", None, None),
        (None, "C1", "same amount; same customer"),
        ("RE-77", "C1", "same amount; same customer"),
        ("RE-77", None, None),
    ],
)
def test_suggestions(
    world: World, plans: list[int], number: str | None, customer: str | None, because: str | None
) -> None:
    assert world.invoice(plans[0]) == "INV-2026-000001"
    world.record(number, "10.73", customer_ref=customer)
    assert world.match()["parked"] == 1
    assert suggested(world) == ([(world.invoice(plans[0]), because)] if because else [])
    with pytest.raises(NotAllowed, match="there is nothing to approve"):
        world.approve(plans[0])
    world.match()
    world.settle()
    assert world.status(plans[0]) == "Pending", "a suggestion is never applied by itself"


def test_no_suggestion_over_another_amount(world: World, plans: list[int]) -> None:
    world.record(None, "10.72", customer_ref="C1")
    world.match()
    assert suggested(world) == []


def test_an_assigned_record_pays_after_finance_has_verified_it(
    world: World, plans: list[int]
) -> None:
    plan, number = plans[0], world.invoice(plans[0])
    record = world.record(None, "12.00", customer_ref="nobody")
    assert record
    world.match()
    officer = world.officer("test_clerk")
    decisions.assign(world.engine, officer, record, number, "the customer wrote to us")
    world.match()
    assert world.rows("SELECT outcome, invoice_number, assigned_by FROM prepaid.transactions") == [
        ("matched", None, officer)
    ]
    assert world.rows(
        "SELECT agrees, difference FROM prepaid.payment_verifications WHERE service_plan_id = :p",
        p=plan,
    ) == [(False, f"12.00 was paid and assigned to this invoice by {officer}")]
    assert (
        world.sql("SELECT status FROM prepaid.tasks WHERE kind = 'payment_review'") == "Withdrawn"
    )
    world.approve(plan)
    world.settle()
    assert world.status(plan) == "Active"
    assert findings(world) == []
    assert world.rows(
        "SELECT actor, detail FROM prepaid.audit_log WHERE event = 'transaction_assigned'"
    ) == [(officer, f"to invoice {number}")]
    assert world.sql("SELECT assigned_note FROM prepaid.transactions") == "the customer wrote to us"
    told = world.sql("SELECT what FROM prepaid.plan_events WHERE event = 'transaction_assigned'")
    assert told == f"parked -> (to invoice {number}) the customer wrote to us"


def test_assigned_parts_count_together(world: World, plans: list[int]) -> None:
    number, officer = world.invoice(plans[0]), world.officer("test_clerk")
    for amount in ("4.00", "7.00"):
        record = world.record(None, amount)
        assert record
        world.match()
        decisions.assign(world.engine, officer, record, number, "by telephone")
        world.match()
    assert [r[0] for r in world.rows("SELECT outcome FROM prepaid.transactions")] == ["matched"] * 2
    world.approve(plans[0])
    world.settle()
    assert world.status(plans[0]) == "Active"
    assert findings(world) == []


@pytest.mark.parametrize(
    ("changes", "number", "note", "said"),
    [
        ({}, "INV-2026-000009", "why", "there is no invoice INV-2026-000009"),
        ({}, "INV-2026-000001", " ", "needs a note"),
        ({"currency": "EUR"}, "INV-2026-000001", "why", "is in EUR, invoice INV-2026-000001"),
        ({"status": "Failed"}, "INV-2026-000001", "why", "says Failed: only Success pays"),
        ({"status": "Pending"}, "INV-2026-000001", "why", "is waiting: only a parked one"),
        ({"amount": "-5"}, "INV-2026-000001", "why", "has the amount -5: it pays nothing"),
    ],
)
def test_what_cannot_be_assigned(
    world: World, plans: list[int], changes: dict[str, str], number: str, note: str, said: str
) -> None:
    assert len(plans) == 2
    record = world.record(None, **{"amount": "10.73", **changes})
    assert record
    world.match()
    with pytest.raises(NotAllowed, match=said):
        decisions.assign(world.engine, world.officer(), record, number, note)


def test_only_finance_assigns(world: World, plans: list[int]) -> None:
    record = world.record(None, "10.73")
    assert record
    world.match()
    person = world.officer("test_care", "customer_success")
    with pytest.raises(NotAllowed):
        decisions.assign(world.engine, person, record, world.invoice(plans[0]), "why")


def refund(world: World, plan: int, number: str = "CN-2026-000001") -> None:
    """A credit note that asks for 5.00 back."""
    world.sql(
        "WITH issued AS ("
        "INSERT INTO prepaid.credit_notes (credit_note_number, service_plan_id, invoice_id,"
        " customer_id, currency, net, tax, total, reason, issued_on, issued_by)"
        " SELECT :n, service_plan_id, invoice_id, customer_id, 'USD', 4.66, 0.34, 5.00,"
        " 'cancellation', '2026-11-05', 'somebody' FROM prepaid.invoices"
        " WHERE service_plan_id = :p RETURNING *"
        ") INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, credit_note_id,"
        " assigned_role, opened_on, due_on) SELECT 'payment_refund', service_plan_id, invoice_id,"
        " credit_note_id, 'finance', issued_on, '2026-11-08' FROM issued",
        n=number,
        p=plan,
    )


@pytest.mark.parametrize(
    ("ref", "named", "amount", "outcome", "invoice_status"),
    [
        ("p1", "INV-2026-000001", "5.00", "matched", "Paid"),
        ("p1", None, "5.00", "matched", "Paid"),
        ("other", "CN-2026-000001", "5.00", "matched", "Paid"),
        ("p1", "INV-2026-000001", "5.01", "parked", "Paid"),
        ("other", None, "5.00", "parked", "Paid"),
    ],
)
def test_a_refund_that_a_credit_note_asked_for_reopens_nothing(
    world: World,
    plans: list[int],
    ref: str,
    named: str | None,
    amount: str,
    outcome: str,
    invoice_status: str,
) -> None:
    world.record(world.invoice(plans[0]), provider_ref="p1")
    world.match()
    world.approve(plans[0])
    world.settle()
    refund(world, plans[0])
    record = world.record(
        named, amount, provider_ref=ref, status="Refunded", occurred_at="2026-11-06T10:00Z"
    )
    world.match()
    assert world.rows(
        "SELECT outcome, credit_note_id IS NOT NULL FROM prepaid.transactions"
        " WHERE transaction_id = :t",
        t=record,
    ) == [(outcome, outcome == "matched")]
    assert (
        world.sql("SELECT status FROM prepaid.invoices WHERE service_plan_id = :p", p=plans[0])
        == invoice_status
    )
    # Asked for once: the same amount again was not.
    if outcome == "matched":
        world.record(
            named, amount, provider_ref=ref, status="Refunded", occurred_at="2026-11-07T10:00Z"
        )
        assert world.match()["parked"] == 1


def test_references_of_any_length_land(world: World, plans: list[int]) -> None:
    world.record(world.invoice(plans[0]), provider_ref="r" * 10_000, status="s" * 10_000)
    world.record("n" * 10_000, "1" + "0" * 200, currency="c" * 10_000, customer_ref="x" * 10_000)
    assert world.match() == {"matched": 0, "parked": 1, "superseded": 0, "waiting": 1}
    assert world.sql("SELECT max(length(outcome_reason)) FROM prepaid.transactions") < 200
    assert findings(world) == []


def activated(world: World, plan: int) -> None:
    """Paid by p1, approved, settled."""
    world.record(world.invoice(plan), provider_ref="p1")
    world.match()
    world.approve(plan)
    world.settle()


def test_a_refund_may_come_in_pieces(world: World, plans: list[int]) -> None:
    activated(world, plans[0])
    refund(world, plans[0])
    for amount, hour in (("2.00", 10), ("3.00", 11), ("0.01", 12)):
        world.record(
            world.invoice(plans[0]),
            amount,
            provider_ref="p1",
            status="Refunded",
            occurred_at=f"2026-11-06T{hour}:00Z",
        )
    world.match()
    assert world.rows(
        "SELECT outcome FROM prepaid.transactions WHERE status = 'Refunded' ORDER BY occurred_at"
    ) == [("matched",), ("matched",), ("parked",)]


def live_refunds(world: World) -> int:
    return world.sql(
        "SELECT count(*) FROM prepaid.tasks WHERE kind = 'payment_refund' AND status = 'Open'"
    )


def test_what_was_charged_back_is_not_paid_back_as_well(world: World, plans: list[int]) -> None:
    activated(world, plans[0])
    refund(world, plans[0])
    assert live_refunds(world) == 1
    taken = {"provider_ref": "p1", "amount": "10.73"}
    world.record(
        world.invoice(plans[0]), status="Chargeback", occurred_at="2026-11-06T10:00Z", **taken
    )
    world.match()
    assert live_refunds(world) == 0
    assert not [line for line in findings(world) if "pay back" in line]
    world.record(
        world.invoice(plans[0]),
        status="ChargebackReversed",
        occurred_at="2026-11-07T10:00Z",
        **taken,
    )
    world.match()
    assert live_refunds(world) == 1


def test_what_finance_has_paid_back_elsewhere_pays_nothing(world: World, plans: list[int]) -> None:
    number = world.invoice(plans[0])
    activated(world, plans[0])
    world.record(number, provider_ref="p2", occurred_at="2026-11-02T12:00Z")
    world.match()
    review = world.task(plans[0], "payment_review")
    decisions.decide(world.engine, world.officer(), [review], "approve", "paid back by transfer")
    world.record(
        number, "10.73", provider_ref="p1", status="Chargeback", occurred_at="2026-11-06T10:00Z"
    )
    world.match()
    assert world.rows(
        "SELECT provider_ref, outcome FROM prepaid.transactions ORDER BY occurred_at"
    ) == [("p1", "superseded"), ("p2", "parked"), ("p1", "parked")]
    assert world.holds(plans[0]) == ["payment_reversed"]
    assert findings(world) == []


def test_one_payment_is_not_assigned_to_a_second_invoice(world: World, plans: list[int]) -> None:
    first, second = (world.invoice(plan) for plan in plans)
    world.record(first, provider_ref="p1", occurred_at="2026-11-02T09:00Z")
    again = world.record(second, provider_ref="p1", occurred_at="2026-11-02T10:00Z")
    assert again
    world.match()
    with pytest.raises(NotAllowed, match="payment p1 has paid an invoice already"):
        decisions.assign(world.engine, world.officer(), again, second, "why")


def test_money_parked_once_more_is_asked_about_once_more(world: World, plans: list[int]) -> None:
    number = world.invoice(plans[0])
    record = world.record(None, "10.73")
    assert record
    world.match()
    person = world.officer()
    decisions.assign(world.engine, person, record, number, "meant for it")
    world.match()
    world.cancel(plans[0])
    world.match()
    assert world.rows(
        "SELECT outcome FROM prepaid.transactions WHERE transaction_id = :t", t=record
    ) == [("parked",)]
    assert (
        world.sql(
            "SELECT count(*) FROM prepaid.tasks WHERE kind = 'payment_review' AND status = 'Open'"
        )
        == 1
    )
