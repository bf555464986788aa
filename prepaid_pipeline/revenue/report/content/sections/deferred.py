"""What is owed to customers, and how it agrees with invoices and cash: ``deferred`` and
``reconciliation``.
"""

from decimal import Decimal

from sqlalchemy import Connection

from prepaid_pipeline.revenue.report.content.rounding import rounded, text
from prepaid_pipeline.revenue.report.content.sections.rates import SQL, known_months
from prepaid_pipeline.revenue.report.content.sections.reading import Months, Reports, by_key, read

KEYS = ("deferred", "reconciliation")
ROLL_FORWARD = ("opening", "billed", "recognised", "refunded", "closing")
# Every line in its order, with what it is. The lines after a sum add up to the next one.
LINES = {
    "billed": "net of the terms that became active, as in the roll-forward",
    "imported": "terms of imported history, which were invoiced elsewhere",
    "waiting": "invoices of terms that are not active yet; less those of earlier months that became"
    " active",
    "invoices_remainder": "what no line explains: must be 0",
    "invoices_net": "sum: net of the invoices issued in the month",
    "tax": "tax on them",
    "invoices_total": "sum: the invoices issued in the month",
    "paid_with_credit": "paid with the credit of a term that was changed",
    "not_paid": "issued and not paid by the month's end, void ones too; less what was paid now of"
    " earlier months",
    "taken_back": "payments reversed and not made good; less those of earlier months that were",
    "overpaid": "paid twice or too much; less what was given back of it",
    "unassigned": "money that belongs to no invoice; less what was given back or assigned of it",
    "dated_later": "terms that became active before the date of their payment; less those whose"
    " payment is dated in this month",
    "credit_notes_paid": "refunded for credit notes",
    "cash_remainder": "what no line explains: must be 0",
    "cash": "sum: received less returned",
    "cash_received": "of which: received",
    "cash_returned": "of which: reversed or refunded",
}


def add(connection: Connection, months: Months, reports: Reports) -> None:
    """Add the keys to each month's figures of each currency; None for a month of an older release.

    The roll-forward and the lines have the currency's decimals and add up as they are.
    """
    balances = by_key(read(connection, SQL, "deferred", months))
    lines = by_key(read(connection, SQL, "reconciliation", months))
    known = known_months(connection, months)
    for month, currencies in reports.items():
        for figures in currencies:
            key, exponent = (month, figures["currency"]), figures["exponent"]
            figures["deferred"] = figures["reconciliation"] = None
            if month not in known:
                continue
            # At most one row: the month and currency are its key.
            balance = balances[key][0] if balances[key] else dict.fromkeys(ROLL_FORWARD, Decimal(0))
            figures["deferred"] = {
                name: text(rounded(balance[name], exponent)) for name in ROLL_FORWARD
            }
            amounts = {row["line"]: row["amount"] for row in lines[key]}
            figures["reconciliation"] = [
                {
                    "line": line,
                    "amount": text(rounded(amounts.get(line, Decimal(0)), exponent)),
                    "why": why,
                }
                for line, why in LINES.items()
            ]
