"""A month's figures as they are reported: taken from the published tables and rounded to be shown.

``figures`` of one month and currency is a dict for JSON: amounts are decimal strings with the
currency's decimals, counts are integers. ``docs/revenue.md`` says what each means.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.revenue.report.content.rounding import parts, rounded, text
from prepaid_pipeline.revenue.report.content.sections import (
    countries,
    deferred,
    renewals,
    retention,
)
from prepaid_pipeline.revenue.report.content.sections.reading import SQL, Months, by_key, read
from prepaid_pipeline.revenue.rules import KINDS, MOVEMENTS, REVERSALS

# Each adds its keys to the figures of every month and currency.
_SECTIONS = (countries, renewals, retention, deferred)
# Null in versions of releases that did not know them.
_LATER_KEYS = (
    "arr",
    "average_per_customer",
    *(key for section in _SECTIONS for key in section.KEYS),
)


def collect(
    connection: Connection, first_month: date, last_month: date
) -> dict[date, list[dict[str, Any]]]:
    """The figures of every published month in the range, per currency, largest first. A month
    without any is an empty list; a month that was never computed is missing.
    """
    months: Months = {"first_month": first_month, "last_month": last_month}
    movements, plans, activations, reversals, credit_notes = (
        by_key(read(connection, SQL, part, months))
        for part in ("movements", "plans", "activations", "reversals", "credit_notes")
    )
    reports: dict[date, list[dict[str, Any]]] = {
        row["month"]: [] for row in read(connection, SQL, "months", months)
    }
    for row in read(connection, SQL, "currencies", months):
        key = (row["month"], row["currency"])
        figures = _figures(row, movements[key], plans[key], activations[key])
        figures["reversals"] = _reversals(reversals[key], row["exponent"])
        figures["credit_notes"] = _credit_notes(credit_notes[key], row["exponent"])
        reports[row["month"]].append(figures)
    for section in _SECTIONS:
        section.add(connection, months, reports)
    return reports


def complete(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Stored figures with what an older release did not know yet: none of it, or null."""
    exponent = figures["exponent"]
    return {
        **dict.fromkeys(_LATER_KEYS),
        "reversals": _reversals((), exponent),
        "credit_notes": _credit_notes((), exponent),
        **figures,
        "kinds": {**_kinds((), exponent), **figures["kinds"]},
    }


def same(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``after`` says the same as ``before``, whatever plans are called by now, however the
    lines of the reconciliation are described, and whatever else a newer release adds.
    """
    return len(before) == len(after) and all(
        all(told_now[key] == value for key, value in told.items() if value is not None)
        for told, told_now in zip(map(_told, before), map(_told, after), strict=True)
    )


def _told(figures: Mapping[str, Any]) -> dict[str, Any]:
    told = complete(figures)
    for split in ("plans", "activations"):
        told[split] = [{**row, "name": None} for row in figures[split]]
    if told["renewals"] is not None:
        of_plans = [{**row, "name": None} for row in told["renewals"]["plans"]]
        told["renewals"] = {**told["renewals"], "plans": of_plans}
    if told["reconciliation"] is not None:
        told["reconciliation"] = [{**line, "why": None} for line in told["reconciliation"]]
    return told


def _figures(
    row: RowMapping,
    movements: Sequence[RowMapping],
    plans: Sequence[RowMapping],
    activations: Sequence[RowMapping],
) -> dict[str, Any]:
    exponent = row["exponent"]
    opening, closing = (rounded(row[k], exponent) for k in ("opening_mrr", "closing_mrr"))
    return {
        "currency": row["currency"],
        "exponent": exponent,
        "opening_mrr": text(opening),
        "mrr": text(closing),
        "change": text(closing - opening),
        "opening_customers": row["opening_customers"],
        "customers": row["closing_customers"],
        **_averages(row),
        "active_plans": sum(int(p["active_plans"]) for p in plans),
        "kinds": _kinds(activations, exponent),
        "movements": _movements(movements, exponent, closing - opening),
        "plans": _plans(plans, exponent, closing),
        "activations": [
            {
                "plan_code": a["plan_code"],
                "name": a["name"],
                "kind": a["kind"],
                "plans": a["plans"],
                "net_amount": text(rounded(a["net_amount"], exponent)),
            }
            for a in activations
        ],
    }


def _averages(row: RowMapping) -> dict[str, str | None]:
    """ARR is twelve times MRR; both are made from the amount that is not rounded."""
    mrr, customers, exponent = row["closing_mrr"], row["closing_customers"], row["exponent"]
    each = text(rounded(mrr / customers, exponent)) if customers else None
    return {"arr": text(rounded(mrr * 12, exponent)), "average_per_customer": each}


def _kinds(activations: Sequence[RowMapping], exponent: int) -> dict[str, dict[str, Any]]:
    kinds = {}
    for kind in KINDS:
        of_kind = [a for a in activations if a["kind"] == kind]
        net = sum((a["net_amount"] for a in of_kind), Decimal(0))
        kinds[kind] = {
            "plans": sum(a["plans"] for a in of_kind),
            "net_amount": text(rounded(net, exponent)),
        }
    return kinds


def _movements(rows: Sequence[RowMapping], exponent: int, change: Decimal) -> list[dict[str, Any]]:
    known = {row["movement"]: row for row in rows}
    moved = [known[movement] for movement in MOVEMENTS if movement in known]
    amounts = parts([row["amount"] for row in moved], exponent, change)
    shown = dict(zip((row["movement"] for row in moved), amounts, strict=True))
    zero = rounded(Decimal(0), exponent)
    return [
        {
            "movement": movement,
            "customers": known[movement]["customers"] if movement in known else 0,
            "amount": text(shown.get(movement, zero)),
        }
        for movement in MOVEMENTS
    ]


def _plans(rows: Sequence[RowMapping], exponent: int, total: Decimal) -> list[dict[str, Any]]:
    amounts = parts([row["mrr"] for row in rows], exponent, total)
    return [
        {
            "plan_code": row["plan_code"],
            "name": row["name"],
            "active_plans": row["active_plans"],
            "mrr": text(amount),
        }
        for row, amount in zip(rows, amounts, strict=True)
    ]


def _reversals(rows: Sequence[RowMapping], exponent: int) -> dict[str, Any]:
    known = {row["kind"]: row for row in rows}
    zero = Decimal(0)
    exact = [known[kind]["amount"] if kind in known else zero for kind in REVERSALS]
    total = rounded(sum(exact, zero), exponent)
    return {
        "records": sum(row["records"] for row in rows),
        "amount": text(total),
        "kinds": [
            {
                "kind": kind,
                "records": known[kind]["records"] if kind in known else 0,
                "amount": text(amount),
            }
            for kind, amount in zip(REVERSALS, parts(exact, exponent, total), strict=True)
        ],
    }


def _credit_notes(rows: Sequence[RowMapping], exponent: int) -> dict[str, Any]:
    # At most one row, and its amounts have the currency's decimals already.
    amounts = {
        key: text(rounded(sum((row[key] for row in rows), Decimal(0)), exponent))
        for key in ("net", "tax", "total")
    }
    return {"count": sum(row["credit_notes"] for row in rows), **amounts}


def staged_row(month: date, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The row of revenue.monthly_report for one month's figures of one currency."""
    return {
        "month": month.isoformat(),
        "currency": figures["currency"],
        "new_plans": figures["kinds"]["new"]["plans"],
        "renewals": figures["kinds"]["renewal"]["plans"],
        "reactivations": figures["kinds"]["reactivation"]["plans"],
        "opening_mrr": figures["opening_mrr"],
        "mrr": figures["mrr"],
        "active_plans": figures["active_plans"],
        "customers": figures["customers"],
        "figures": figures,
        "changes": figures["kinds"]["change"]["plans"],
    }
