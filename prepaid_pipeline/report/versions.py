"""Versions of a month's report: preliminary (0) until the month is closed, then 1, and one more for
each later truth. Figures are staged, validated by the caller, then published.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from prepaid_pipeline import queries
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.report.changes import describe
from prepaid_pipeline.report.figures import SQL, collect, same, staged_row
from prepaid_pipeline.revenue import Span, clean_staging, closes_on

PRELIMINARY = 0
_PUBLISH = "revenue/13_publish_report"


@dataclass(frozen=True)
class Version:
    """One version of one month's report, with the figures of each currency."""

    month: date
    version: int
    cut_off: date
    note: str
    published_at: datetime
    figures: tuple[dict[str, Any], ...]

    @property
    def is_closed(self) -> bool:
        """False while the month is preliminary."""
        return self.version > PRELIMINARY

    @property
    def name(self) -> str:
        """``preliminary``, or ``version 2``."""
        return f"version {self.version}" if self.is_closed else "preliminary"


def load(connection: Connection, first_month: date, last_month: date) -> list[Version]:
    """All versions of the months in the range, oldest first."""
    params = {"first_month": first_month, "last_month": last_month}
    figures: dict[tuple[date, int], list[dict[str, Any]]] = defaultdict(list)
    for row in queries.statement(SQL, "reports").execute(connection, params).mappings():
        figures[row["month"], row["version"]].append(row["figures"])
    rows = queries.statement(SQL, "versions").execute(connection, params).mappings()
    return [Version(**row, figures=tuple(figures[row["month"], row["version"]])) for row in rows]


def stage(engine: Engine, span: Span, run_id: str) -> None:
    """Stage the reports of the span's months from the published figures.

    Raises UnknownThing naming the months that have none.
    """
    with engine.begin() as connection:
        clean_staging(connection, run_id)
        reports = collect(connection, span.first_month, span.last_month)
        missing = [f"{month:%Y-%m}" for month in span.months() if month not in reports]
        if missing:
            raise UnknownThing(
                f"no monthly figures for {', '.join(missing)}: materialise mrr for them first"
            )
        rows = [staged_row(month, figures) for month in reports for figures in reports[month]]
        params = {
            "run_id": run_id,
            "first_month": span.first_month,
            "last_month": span.last_month,
            "reports": json.dumps(rows),
        }
        queries.statement(SQL, "stage_months").execute(connection, params)
        queries.statement(SQL, "stage").execute(connection, params)


def publish(engine: Engine, span: Span, run_id: str, grace_days: int) -> list[date]:
    """Publish what changed among the staged months, in one transaction; returns those months.

    A closed month whose figures are the same gets no new version, and neither does one whose
    figures have an earlier cut-off than its last version: that is a replay, not later truth.
    """
    months = {"first_month": span.first_month, "last_month": span.last_month}
    with engine.begin() as connection:
        reports = collect(connection, **months)
        standing = {version.month: version for version in load(connection, **months)}
        computed = queries.statement(SQL, "months").execute(connection, months)
        cut_offs = {row.month: row.as_of for row in computed}
        changed = []
        for month, figures in reports.items():
            closed = cut_offs[month] >= closes_on(month, grace_days)
            new = _successor(standing.get(month), month, cut_offs[month], figures, closed=closed)
            if new is not None:
                changed.append(new)
        params = {"run_id": run_id, "versions": json.dumps(changed)}
        for part in queries.script(_PUBLISH):
            part.execute(connection, params)
        clean_staging(connection, run_id)
    return [date.fromisoformat(version["month"]) for version in changed]


def _successor(
    last: Version | None, month: date, cut_off: date, figures: list[dict[str, Any]], *, closed: bool
) -> dict[str, Any] | None:
    new = {"month": month.isoformat(), "cut_off": cut_off.isoformat()}
    if last is None or not last.is_closed:
        if closed:
            return {**new, "version": 1, "note": "First closed version."}
        if last is not None and last.cut_off == cut_off and list(last.figures) == figures:
            return None
        return {**new, "version": PRELIMINARY, "note": "Preliminary: the month is not closed yet."}
    if same(last.figures, figures) or cut_off < last.cut_off:
        return None
    note = f"Changed since version {last.version}: {describe(last.figures, figures)}."
    return {**new, "version": last.version + 1, "note": note}
