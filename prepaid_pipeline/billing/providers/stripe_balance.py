"""Stripe's balance transactions: what each category of them means.

Sources: docs.stripe.com/reports/reporting-categories (the categories, and the older types that they
group), docs.stripe.com/reports/balance-transaction-types, docs.stripe.com/api/balance_transactions.
"""

import re
from collections.abc import Iterator

from prepaid_pipeline.billing.providers import references
from prepaid_pipeline.billing.providers.records import (
    CHARGEBACK,
    FAILED,
    REFUNDED,
    REVERSED,
    SUCCESS,
    Payment,
    Source,
)
from prepaid_pipeline.billing.providers.stripe_table import Row

# reporting_category, or type where the export has no category -> our status.
MEANINGS = {
    "charge": SUCCESS,
    "payment": SUCCESS,
    "refund": REFUNDED,
    "payment_refund": REFUNDED,
    # A part of the amount that was authorised is not taken: the customer has paid that much less.
    "partial_capture_reversal": REFUNDED,
    "dispute": CHARGEBACK,
    "dispute_reversal": REVERSED,
    "charge_failure": FAILED,
    "payment_failure_refund": FAILED,
}
# Stripe's dealings with the merchant, with connected accounts and with issued cards.
_SKIPPED = """
    advance advance_funding anticipation_repayment application_fee application_fee_refund
    climate_order_purchase climate_order_refund connect_collection_transfer connect_reserved_funds
    contribution currency_conversion fee fee_credit_funding financing_paydown
    financing_paydown_reversal financing_payout financing_payout_reversal inbound_transfer
    inbound_transfer_reversal issuing_authorization_hold issuing_authorization_release
    issuing_dispute issuing_transaction minimum_balance_hold network_cost obligation_outbound
    obligation_reversal_inbound other_adjustment payment_network_reserve_hold
    payment_network_reserve_release payment_network_reserved_funds payout payout_cancel
    payout_failure payout_minimum_balance_hold payout_minimum_balance_release payout_reversal
    platform_earning platform_earning_refund platform_fee recipient_transfer
    recipient_transfer_cancel recipient_transfer_failure reserve_hold reserve_release
    reserve_transaction reserved_funds risk_reserved_funds stripe_balance_payment_debit
    stripe_balance_payment_debit_reversal stripe_fee stripe_fx_fee tax tax_fee tax_fund topup
    topup_reversal transfer transfer_cancel transfer_failure transfer_refund transfer_reversal
    validation
    """
SKIPPED = frozenset(_SKIPPED.split())
_CHARGE = re.compile(r"\b(?:ch|py)_[A-Za-z0-9]+")
_DISPUTE = ("dp_", "du_")
_PAYMENT = ("ch_", "py_", "re_", "pyr_")


def payments(row: Row, source: Source) -> Iterator[Payment]:
    """The record of one balance transaction; none for what is not a customer's payment.

    Raises Fault for what cannot be read, and for a sign that the category cannot have.
    """
    event_ref = row.reference("id")
    if not event_ref.startswith("txn_"):
        raise row.fault("id", "the id of a balance transaction (txn_…)")
    word = row.reference("kind")
    kind = word.lower()
    if not kind:
        raise row.fault("kind", "a reporting category or a type")
    amount, currency = row.amount("amount"), row.text("currency").upper()
    origin = row.reference("source")
    status = MEANINGS.get(kind)
    if kind == "adjustment" and origin.startswith(_DISPUTE):
        status = CHARGEBACK if amount < 0 else REVERSED
    if status is None and (
        kind in SKIPPED or (kind == "adjustment" and not origin.startswith(_PAYMENT))
    ):
        source.skipped[kind] += 1
        return
    if status is not None:
        comes_in = status in (SUCCESS, REVERSED)
        if amount < 0 if comes_in else amount > 0:
            raise row.fault("amount", f"a {'positive' if comes_in else 'negative'} {kind}")
        # What the customer paid, or got back; the account's own currency may be another one.
        # Of disputes Stripe knows it in the account's currency only.
        converted = status not in (CHARGEBACK, REVERSED)
        if converted and row.text("facing_amount") and row.text("facing_currency"):
            amount = row.amount("facing_amount")
            currency = row.text("facing_currency").upper()
        amount = amount.copy_abs()
    if not currency:
        raise row.fault("currency", "a currency")
    charge = _charge(row, origin)
    own = origin or event_ref
    yield Payment(
        line=row.line,
        event_ref=event_ref,
        provider=source.provider or "stripe",
        provider_ref=charge or own,
        invoice_number=row.metadata("invoice_number")
        or references.only_one([row.text("description")]),
        amount=amount,
        currency=currency,
        status=status or word,
        occurred_at=row.moment("created"),
        customer_ref=row.metadata("customer_ref"),
        original_refs=[] if status not in (None, SUCCESS) and not charge else None,
    )


def _charge(row: Row, origin: str) -> str:
    """The charge that the row is about, where the export names it: in a column of its own, as the
    source, or, in older exports, in the description of a refund or dispute.
    """
    if charge := row.reference("charge"):
        return charge
    if origin.startswith(("ch_", "py_")):
        return origin
    named = set(_CHARGE.findall(row.text("description")))
    return named.pop() if len(named) == 1 else ""
