"""Versions of a month's report: preliminary (0) until the month is closed, then 1, and one more for
each later truth. Figures are staged, validated by the caller, then published.

The files of ``sql/steps/13_…`` run in the order of their numbers: 1 to 3 to stage, then 1, 2 and 4
to 8 to publish, which reads the figures once more.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

from sqlalchemy import Connection, Engine, RowMapping

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.revenue.figures import Span, clean_staging, closes_on, next_month
from prepaid_pipeline.revenue.report.content import converted, parts
from prepaid_pipeline.revenue.report.content.changes import describe, since
from prepaid_pipeline.revenue.report.content.figures import collect, same, staged_row
from prepaid_pipeline.revenue.report.content.sections.reading import SQL, Months, read

PRELIMINARY = 0
_STAGE = "steps/13_monthly_revenue_report/3_stage"
_VERSIONS = "steps/13_monthly_revenue_report/4_versions"
_PUBLISH = "steps/13_monthly_revenue_report/8_publish_report"
_PRELIMINARY_NOTE = "Preliminary: the month is not closed yet."


@dataclass(frozen=True)
class Version:
    """One version of one month's report, with the figures of each currency.

    ``document`` has what it says of the month as a whole, by key (report/parts.py), ``fingerprint``
    is that of the inputs of its figures, which were read at ``computed_at``; null in versions of an
    older release.
    """

    month: date
    version: int
    cut_off: date
    note: str
    published_at: datetime
    fingerprint: str | None
    computed_at: datetime | None
    document: dict[str, Any] | None
    figures: tuple[dict[str, Any], ...]

    @property
    def is_closed(self) -> bool:
        """False while the month is preliminary."""
        return self.version > PRELIMINARY

    @property
    def name(self) -> str:
        """How texts call it: ``preliminary`` or, for example, ``version 2``."""
        return f"version {self.version}" if self.is_closed else "preliminary"


def load(connection: Connection, first_month: date, last_month: date) -> list[Version]:
    """All versions of the months in the range, oldest first."""
    params = {"first_month": first_month, "last_month": last_month}
    figures: dict[tuple[date, int], list[dict[str, Any]]] = defaultdict(list)
    for row in queries.statement(_VERSIONS, "reports").execute(connection, params).mappings():
        figures[row["month"], row["version"]].append(row["figures"])
    rows = queries.statement(_VERSIONS, "versions").execute(connection, params).mappings()
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
        queries.run(connection, _STAGE, params)


def publish(
    engine: Engine,
    span: Span,
    run_id: str,
    grace_days: int,
    reporting_currency: str | None = None,
    recipients: Sequence[str] = (),
) -> list[date]:
    """Publish what changed among the staged months, in one transaction; returns those months.

    A closed month whose figures are the same gets no new version, and neither does one whose
    figures have an earlier cut-off than its last version: that is a replay, not later truth.
    ``recipients`` get a mail about each version that is news: of the month that was closed last,
    or after one that they had.
    """
    months: Months = {"first_month": span.first_month, "last_month": span.last_month}
    with engine.begin() as connection:
        reports = collect(connection, **months)
        rows = {row["month"]: row for row in read(connection, SQL, "months", months)}
        standing = {version.month: version for version in load(connection, **months)}
        documents = parts.collect(
            connection,
            **months,
            as_of=span.as_of,
            run_id=run_id,
            reporting_currency=reporting_currency,
        )
        # The published report records the audit log as it is now: it is an anchor of its own.
        newest = seals.newest_seen(connection)
        seal = newest and seals.sentence(newest.seal_number, newest.seal_hash)
        changed = []
        for month, figures in reports.items():
            made = _Made(month, rows[month], figures, documents[month])
            last = standing.get(month)
            version = _successor(last, made, closed=made.cut_off >= closes_on(month, grace_days))
            if version is None:
                continue
            note = "First closed version." if version else _PRELIMINARY_NOTE
            document = {**made.document, "changes": None, "audit_seal": seal}
            if last is not None and last.is_closed:
                note = f"Changed since version {last.version}: {_changes(last, made)}."
                document["changes"] = since(
                    connection, month, last, figures, made.document, made.cut_off
                )
            is_news = made.cut_off < closes_on(next_month(month), grace_days)
            changed.append({**made.row(version, note, document), "is_news": is_news})
        params = {"run_id": run_id, "versions": json.dumps(changed), "recipients": list(recipients)}
        queries.run(connection, _PUBLISH, params)
        clean_staging(connection, run_id)
    return [date.fromisoformat(version["month"]) for version in changed]


def occasion_of(text: str) -> tuple[date, int]:
    """The month and version of a mail's occasion, ``2026-10 version 1``. Raises ValueError."""
    month, _, version = text.partition(" version ")
    return date.fromisoformat(f"{month}-01"), int(version)


@dataclass(frozen=True)
class _Made:
    """A month's report as this run makes it; ``computed`` is its row of revenue.months."""

    month: date
    computed: RowMapping
    figures: list[dict[str, Any]]
    document: dict[str, Any]

    @property
    def cut_off(self) -> date:
        return cast(date, self.computed["as_of"])

    def row(self, version: int, note: str, document: dict[str, Any]) -> dict[str, Any]:
        at = self.computed["computed_at"]
        return {
            "month": self.month.isoformat(),
            "version": version,
            "cut_off": self.cut_off.isoformat(),
            "note": note,
            "fingerprint": self.computed["fingerprint"],
            "computed_at": at and at.isoformat(),
            "document": document,
        }

    def is_as_in(self, last: Version) -> bool:
        """Whether a preliminary version already says all this; its seal does not count."""
        document = {**self.document, "changes": None}
        published = {k: v for k, v in (last.document or {}).items() if k != "audit_seal"}
        return (last.cut_off, last.fingerprint, list(last.figures), published) == (
            self.cut_off,
            self.computed["fingerprint"],
            self.figures,
            document,
        )


def _successor(last: Version | None, made: _Made, *, closed: bool) -> int | None:
    """The number of the version to publish, None if there is nothing new to say."""
    if last is None or not last.is_closed:
        if closed:
            return 1
        return None if last is not None and made.is_as_in(last) else PRELIMINARY
    has_changed = not same(last.figures, made.figures) or converted.has_changed(
        last.document, made.document
    )
    return last.version + 1 if has_changed and made.cut_off >= last.cut_off else None


def _changes(last: Version, made: _Made) -> str:
    found = []
    if not same(last.figures, made.figures):
        found.append(describe(last.figures, made.figures))
    if converted.has_changed(last.document, made.document):
        found.append(converted.describe(last.document, made.document))
    return "; ".join(found)
