"""A month's revenue and activations by the country of the customer: key ``countries``."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.revenue.report.content.rounding import parts, rounded, text
from prepaid_pipeline.revenue.report.content.sections.reading import (
    SQL,
    Months,
    Reports,
    by_key,
    read,
)
from prepaid_pipeline.revenue.rules import KINDS

KEYS = ("countries",)


def add(connection: Connection, months: Months, reports: Reports) -> None:
    """Add the key to each month's figures of each currency: the countries with active plans or
    activations, most MRR first; the country that a term does not say is ''. None for a month that
    was computed by a release without countries.

    Their MRR adds up to the currency's as shown, and their net amounts to those of the kinds.
    """
    mrr = by_key(read(connection, SQL, "countries", months))
    activations = by_key(read(connection, SQL, "activations_by_country", months))
    for month, currencies in reports.items():
        for figures in currencies:
            key, total = (month, figures["currency"]), Decimal(figures["mrr"])
            known = not total or bool(mrr[key])
            figures["countries"] = (
                _countries(mrr[key], activations[key], figures["exponent"], total)
                if known
                else None
            )


def _countries(
    mrr: Sequence[RowMapping], activations: Sequence[RowMapping], exponent: int, total: Decimal
) -> list[dict[str, Any]]:
    active = {row["country"]: row for row in mrr}
    began = {(row["country"], row["kind"]): row for row in activations}
    exact = {country: row["mrr"] for country, row in active.items()}
    known = sorted(
        active.keys() | {country for country, _ in began},
        key=lambda country: (-exact.get(country, Decimal(0)), country),
    )
    amounts = parts([exact.get(country, Decimal(0)) for country in known], exponent, total)
    kinds = _kinds(known, began, exponent)
    return [
        {
            "country": country,
            "active_plans": active[country]["active_plans"] if country in active else 0,
            "customers": active[country]["customers"] if country in active else 0,
            "mrr": text(amount),
            "kinds": kinds[country],
        }
        for country, amount in zip(known, amounts, strict=True)
    ]


def _kinds(
    known: Sequence[str], began: dict[tuple[str, str], RowMapping], exponent: int
) -> dict[str, dict[str, Any]]:
    by_country: dict[str, dict[str, Any]] = defaultdict(dict)
    for kind in KINDS:
        rows = [began.get((country, kind)) for country in known]
        exact = [row["net_amount"] if row else Decimal(0) for row in rows]
        total = rounded(sum(exact, Decimal(0)), exponent)
        for country, row, amount in zip(known, rows, parts(exact, exponent, total), strict=True):
            by_country[country][kind] = {
                "plans": row["plans"] if row else 0,
                "net_amount": text(amount),
            }
    return by_country
