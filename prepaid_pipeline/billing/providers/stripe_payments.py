"""Stripe's payments export: one row per payment with its present state.

Sources: support.stripe.com/questions/exporting-payment-reports, docs.stripe.com/api/charges,
docs.stripe.com/api/disputes/object (the words for the status of a dispute).
"""

from collections.abc import Iterator
from decimal import Decimal

from prepaid_pipeline.billing.providers import references
from prepaid_pipeline.billing.providers.records import (
    CHARGEBACK,
    FAILED,
    PENDING,
    REFUNDED,
    REVERSED,
    SUCCESS,
    UNFINISHED,
    Payment,
    Source,
)
from prepaid_pipeline.billing.providers.stripe_table import Row

# Status of the export -> the statuses of the payment itself; a refund is a record of its own.
MEANINGS = {
    "paid": SUCCESS,
    "succeeded": SUCCESS,
    "refunded": SUCCESS,
    "partially refunded": SUCCESS,
    "partial refund": SUCCESS,
    "failed": FAILED,
    "pending": PENDING,
    "uncaptured": PENDING,
    "requires capture": PENDING,
    "processing": PENDING,
    "canceled": FAILED,
    "cancelled": FAILED,
    "requires payment method": UNFINISHED,
    "requires action": UNFINISHED,
    "requires confirmation": UNFINISHED,
}
# Status of a dispute -> what it did to the money.
DISPUTES = {
    "needs_response": (CHARGEBACK,),
    "under_review": (CHARGEBACK,),
    "lost": (CHARGEBACK,),
    "charge_refunded": (CHARGEBACK,),
    "won": (CHARGEBACK, REVERSED),
    # Inquiries: no money has moved.
    "warning_needs_response": (),
    "warning_under_review": (),
    "warning_closed": (),
    "prevented": (),
}
_IDS = ("ch_", "py_", "pi_")
_BALANCE = "import the balance transactions instead, which have its time"


def payments(row: Row, source: Source) -> Iterator[Payment]:
    """The records of one payment: itself, what was refunded of it, and its dispute.

    Raises Fault for what cannot be read, and for a refund or a dispute without its time.
    """
    ref = row.reference("id")
    if not ref.startswith(_IDS):
        raise row.fault("id", "the id of a payment (ch_…, py_…, pi_…)")
    if row.text("mode").lower() == "test":
        source.skipped["test mode"] += 1
        return
    amount, currency = row.amount("amount"), row.text("currency").upper()
    if amount < 0:
        raise row.fault("amount", "an amount of 0 or more")
    if not currency:
        raise row.fault("currency", "a currency")
    word = row.reference("status")
    status = MEANINGS.get(word.lower().replace("_", " "), word)
    if not status:
        raise row.fault("status", "a status such as Paid")
    if status == SUCCESS and row.text("captured").lower() == "false":
        status = PENDING
    paid = Payment(
        line=row.line,
        event_ref=ref,
        provider=source.provider or "stripe",
        provider_ref=ref,
        invoice_number=row.metadata("invoice_number")
        or references.only_one([row.text("description")]),
        amount=amount,
        currency=currency,
        status=status,
        occurred_at=row.moment("created"),
        customer_ref=row.metadata("customer_ref"),
    )
    yield paid
    yield from _refund(row, paid, told="refunded" in word.lower())
    yield from _dispute(row, paid)


def _refund(row: Row, paid: Payment, told: bool) -> Iterator[Payment]:
    refunded = row.amount("amount_refunded") if row.text("amount_refunded") else Decimal(0)
    if refunded < 0 or refunded > paid.amount or (told and refunded == 0):
        raise row.fault("amount_refunded", f"what was refunded of {paid.amount}")
    if refunded:
        if not row.text("refunded"):
            expected = f"the column Refunded date (UTC) filled in; or {_BALANCE}"
            raise row.fault("refunded", expected)
        yield paid._replace(
            amount=refunded,
            status=REFUNDED,
            occurred_at=row.moment("refunded"),
            cumulative=True,
        )


def _dispute(row: Row, paid: Payment) -> Iterator[Payment]:
    word = row.reference("dispute_status").lower()
    if not word:
        return
    statuses = DISPUTES.get(word.replace(" ", "_"), (f"dispute {word}",))
    if not statuses:
        return
    disputed = row.amount("disputed_amount") if row.text("disputed_amount") else paid.amount
    if not row.text("disputed"):
        raise row.fault("disputed", f"the column Dispute Date (UTC) filled in; or {_BALANCE}")
    for status in statuses:
        yield paid._replace(
            amount=disputed.copy_abs(),
            status=status,
            occurred_at=row.moment("disputed"),
            cumulative=True,
        )
