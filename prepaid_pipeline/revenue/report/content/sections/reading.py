"""How the parts of a month's figures are read from the published tables."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.database import queries

SQL = "steps/13_monthly_revenue_report/1_figures"

# The first and the last month, as the queries name them.
Months = dict[str, date]
# Month -> the figures of its currencies.
Reports = dict[date, list[dict[str, Any]]]
Key = tuple[date, str]


def read(connection: Connection, sql: str, part: str, months: Months) -> Sequence[RowMapping]:
    """The rows of a part of ``sql/<sql>.sql`` for a range of months."""
    return queries.statement(sql, part).execute(connection, months).mappings().all()


def by_key(rows: Sequence[RowMapping]) -> dict[Key, list[RowMapping]]:
    """The rows of each month and currency; an empty list where there are none."""
    groups: dict[Key, list[RowMapping]] = defaultdict(list)
    for row in rows:
        groups[row["month"], row["currency"]].append(row)
    return groups
