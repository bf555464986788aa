"""How many customers, and how much of their MRR, are still there: ``retention``, ``cohorts``."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.revenue.report.content.rounding import parts, rounded, text
from prepaid_pipeline.revenue.report.content.sections.rates import SQL, known_months, rate
from prepaid_pipeline.revenue.report.content.sections.reading import Months, Reports, by_key, read

KEYS = ("retention", "cohorts")
WINDOWS = (1, 12)
_NOBODY: Mapping[str, Any] = {
    "customers_before": 0,
    "customers_kept": 0,
    "mrr_before": Decimal(0),
    "mrr_kept": Decimal(0),
    "mrr_now": Decimal(0),
}


def add(connection: Connection, months: Months, reports: Reports) -> None:
    """Add the keys to each month's figures of each currency; None for a month of an older release.

    ``retention`` has a window of 1 and one of 12 months, with null rates where nobody was there
    before. The MRR of the ``cohorts``, oldest first, adds up to the month's as shown.
    """
    windows = by_key(read(connection, SQL, "retention", months))
    cohorts = by_key(read(connection, SQL, "cohorts", months))
    known = known_months(connection, months)
    for month, currencies in reports.items():
        for figures in currencies:
            key, exponent = (month, figures["currency"]), figures["exponent"]
            is_known = month in known
            figures["retention"] = _windows(windows[key], exponent) if is_known else None
            figures["cohorts"] = (
                _cohorts(month, cohorts[key], exponent, Decimal(figures["mrr"]))
                if is_known
                else None
            )


def _windows(rows: Sequence[RowMapping], exponent: int) -> list[dict[str, Any]]:
    found = {row["window_months"]: dict(row) for row in rows}
    return [_window(window, found.get(window, _NOBODY), exponent) for window in WINDOWS]


def _window(window: int, row: Mapping[str, Any], exponent: int) -> dict[str, Any]:
    before, kept, now = (row[key] for key in ("mrr_before", "mrr_kept", "mrr_now"))
    return {
        "window_months": window,
        "customers_before": row["customers_before"],
        "customers_kept": row["customers_kept"],
        "mrr_before": text(rounded(before, exponent)),
        "mrr_kept": text(rounded(kept, exponent)),
        "mrr_now": text(rounded(now, exponent)),
        "customer_retention": rate(row["customers_kept"], row["customers_before"]),
        "gross_retention": rate(kept, before),
        "net_retention": rate(now, before),
    }


def _cohorts(
    month: date, rows: Sequence[RowMapping], exponent: int, total: Decimal
) -> list[dict[str, Any]]:
    shown_now = parts([row["mrr_now"] for row in rows], exponent, total)
    made = []
    for row, now in zip(rows, shown_now, strict=True):
        began = rounded(row["mrr"], exponent)
        # Rounded to add up, what they are now may be a cent less than what is kept of it.
        kept = min(rounded(row["mrr_kept"], exponent), began, now)
        age = (month.year - row["cohort"].year) * 12 + month.month - row["cohort"].month
        made.append(
            {
                "cohort": f"{row['cohort']:%Y-%m}",
                "age_months": age,
                "customers": row["customers"],
                "customers_kept": row["customers_kept"],
                "mrr": text(began),
                "mrr_now": text(now),
                "mrr_kept": text(kept),
            }
        )
    return made
