"""Rates of the report: parts of 1 as texts with four decimals."""

from decimal import ROUND_HALF_UP, Decimal

from sqlalchemy import Connection

from prepaid_pipeline.revenue.report.content.sections.reading import Months, read

SQL = "steps/13_monthly_revenue_report/2_retention_sections"


def rate(part: int | Decimal, whole: int | Decimal) -> str | None:
    """``part`` of ``whole``, half up; None without a whole."""
    if not whole:
        return None
    return f"{(Decimal(part) / Decimal(whole)).quantize(Decimal('0.0001'), ROUND_HALF_UP):f}"


def known_months(connection: Connection, months: Months) -> set[object]:
    """The months that were computed by a release that knows renewals and deferred revenue."""
    return {row["month"] for row in read(connection, SQL, "known_months", months)}
