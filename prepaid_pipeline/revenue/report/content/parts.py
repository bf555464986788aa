"""What a report shows of a month as a whole, in addition to the figures of each currency.

Each part is a key of the stored document; ``COLLECTORS`` lists who makes it. A part that a month
has nothing of is null there, and a report leaves its section out.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue.report.content import converted
from prepaid_pipeline.revenue.report.content.rounding import rounded

_SQL = "steps/13_monthly_revenue_report/5_report_parts"
COURSE_MONTHS = 13

Part = Mapping[date, Any]
Collector = Callable[[Connection, Mapping[str, Any]], Part]


def collect(
    connection: Connection,
    first_month: date,
    last_month: date,
    as_of: date,
    run_id: str,
    reporting_currency: str | None = None,
) -> dict[date, dict[str, Any]]:
    """The parts of every month in the range, by key. ``run_id`` is the run that makes the reports;
    ``as_of`` the day as of which it sees tasks and holds.
    """
    params = {
        "first_month": first_month,
        "last_month": last_month,
        "as_of": as_of,
        "run_id": run_id,
    }
    keys = (*COLLECTORS, *converted.KEYS)
    documents: dict[date, dict[str, Any]] = defaultdict(lambda: dict.fromkeys(keys))
    for key, collector in COLLECTORS.items():
        for month, part in collector(connection, params).items():
            documents[month][key] = part
    shown = converted.collect(connection, first_month, last_month, reporting_currency)
    for month, of_month in shown.items():
        documents[month] |= of_month
    return documents


def _rows(connection: Connection, part: str, params: Mapping[str, Any]) -> Sequence[RowMapping]:
    return queries.statement(_SQL, part).execute(connection, params).mappings().all()


def course(connection: Connection, params: Mapping[str, Any]) -> Part:
    """13 months up to each month: ``[{currency, months: [{month, new, renewals, new_net,
    renewal_net, mrr}]}]``, amounts as texts, oldest first; months without figures are missing.
    """
    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(connection, "course", params):
        amounts = {
            key: f"{rounded(Decimal(row[key]), row['exponent']):f}"
            for key in ("new_net", "renewal_net", "mrr")
        }
        series[row["currency"]].append(
            {"month": row["month"], "new": row["new_plans"], "renewals": row["renewals"], **amounts}
        )
    months = {point["month"] for points in series.values() for point in points}
    return {
        month: [
            {"currency": currency, "months": shown}
            for currency, points in series.items()
            if (shown := _window(points, month))
        ]
        for month in sorted(months)
        if month >= params["first_month"]
    }


def _window(points: Sequence[Mapping[str, Any]], last: date) -> list[dict[str, Any]]:
    """The 13 months up to ``last``; none of a currency that was not there in any of them."""
    first = last.replace(year=last.year - 1)
    shown = [point for point in points if first <= point["month"] <= last]
    if not any(p["new"] or p["renewals"] or Decimal(p["mrr"]) for p in shown):
        return []
    return [{**point, "month": f"{point['month']:%Y-%m}"} for point in shown]


def process(connection: Connection, params: Mapping[str, Any]) -> Part:
    """How the process ran: ``{tasks: [{kind, opened, decided, rejected, withdrawn, open, late,
    median_hours, longest_hours}], holds: [{reason_code, placed, released, held}]}``. Hours are
    texts with one decimal, null where nothing was decided. No key for a month without either.
    """
    found: dict[date, dict[str, Any]] = defaultdict(lambda: {"tasks": [], "holds": []})
    for row in _rows(connection, "tasks", params):
        found[row["month"]]["tasks"].append(
            {
                **{k: row[k] for k in ("kind", "opened", "decided", "rejected", "withdrawn")},
                "open": row["opened"] - row["decided"] - row["withdrawn"],
                "late": row["late"],
                "median_hours": _hours(row["median_hours"]),
                "longest_hours": _hours(row["longest_hours"]),
            }
        )
    for row in _rows(connection, "holds", params):
        found[row["month"]]["holds"].append(
            {
                **{k: row[k] for k in ("reason_code", "placed", "released")},
                "held": row["placed"] - row["released"],
            }
        )
    return found


def _hours(hours: float | None) -> str | None:
    return None if hours is None else f"{hours:.1f}"


def quality(connection: Connection, params: Mapping[str, Any]) -> Part:
    """What the rules came to: ``[{stage, asset, rule, warning, passed, failing, as_of}]``."""
    found: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(connection, "checks", params):
        found[row["month"]].append(
            {
                **{k: row[k] for k in ("stage", "asset", "rule", "passed", "failing")},
                "warning": row["is_warning"],
                "as_of": row["as_of"].isoformat(),
            }
        )
    return found


COLLECTORS: dict[str, Collector] = {"course": course, "process": process, "quality": quality}
