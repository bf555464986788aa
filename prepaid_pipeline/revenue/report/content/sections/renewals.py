"""The outcome of the terms that ended in the month: key ``renewals``."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.revenue.report.content.sections.rates import SQL, known_months, rate
from prepaid_pipeline.revenue.report.content.sections.reading import Months, Reports, by_key, read

KEYS = ("renewals",)
OUTCOMES = ("on_time", "in_grace", "reactivated", "lapsed", "cancelled", "waiting")


def add(connection: Connection, months: Months, reports: Reports) -> None:
    """Add the key to each month's figures of each currency: the terms due by outcome, with the rate
    of those renewed, in all, by plan and by country, most due first. None for a month of an older
    release.
    """
    rows = by_key(read(connection, SQL, "renewals", months))
    known = known_months(connection, months)
    for month, currencies in reports.items():
        for figures in currencies:
            figures["renewals"] = (
                _renewals(rows[month, figures["currency"]]) if month in known else None
            )


def _renewals(rows: Sequence[RowMapping]) -> dict[str, Any]:
    names = {row["plan_code"]: row["name"] for row in rows}
    return {
        **_counts(rows),
        "plans": [
            {"plan_code": code, "name": names[code], **_share(of_plan)}
            for code, of_plan in _by(rows, "plan_code")
        ],
        "countries": [
            {"country": country, **_share(of_country)}
            for country, of_country in _by(rows, "country")
        ],
    }


def _counts(rows: Sequence[RowMapping]) -> dict[str, Any]:
    counts = {outcome: sum(row[outcome] for row in rows) for outcome in OUTCOMES}
    share = _share(rows)
    return {"due": share["due"], "renewed": share["renewed"], **counts, "rate": share["rate"]}


def _share(rows: Sequence[RowMapping]) -> dict[str, Any]:
    due = sum(row["due"] for row in rows)
    renewed = sum(row["on_time"] + row["in_grace"] for row in rows)
    return {"due": due, "renewed": renewed, "rate": rate(renewed, due)}


def _by(rows: Sequence[RowMapping], column: str) -> list[tuple[str, list[RowMapping]]]:
    groups: dict[str, list[RowMapping]] = defaultdict(list)
    due: Counter[str] = Counter()
    for row in rows:
        groups[row[column]].append(row)
        due[row[column]] += row["due"]
    return sorted(groups.items(), key=lambda group: (-due[group[0]], group[0]))
