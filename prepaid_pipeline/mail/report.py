"""The mail about a month's report that was closed: the headline, a link, and the report as PDF."""

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.mail.mime import Attachment
from prepaid_pipeline.revenue.report.content.document import document
from prepaid_pipeline.revenue.report.content.figures import complete
from prepaid_pipeline.revenue.report.content.versions import load, occasion_of
from prepaid_pipeline.revenue.report.formats.drawing import Job
from prepaid_pipeline.revenue.report.page import build
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import Store

TEMPLATE = "monthly_report"


def details(connection: Connection, occasion: str, settings: Settings) -> dict[str, Any]:
    """What the mail of an occasion (``2026-10 version 1``) is written from; without such a version
    the report is None, and the mail cannot be written.
    """
    month, version = occasion_of(occasion)
    versions = [v for v in load(connection, month, month) if v.version <= version]
    known = bool(versions) and versions[-1].version == version
    report = document(versions, settings.grace_days) if known else None
    return {"report": report, "month": month}


def values(details: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What the templates say. Raises ValueError for a version that there is not."""
    say, report = catalogue.load(settings), details["report"]
    if report is None:
        raise ValueError(f"there is no {details['occasion']} of the report")
    headlines = [build.headline(complete(f), say) for f in report["currencies"]]
    return {
        "say": say,
        "month": say.month(report["month"]),
        "version": report["version"],
        "changed": build.changed(report, say),
        "why": build.why(report, say),
        "headlines": headlines,
        "link": _link(details["month"], report["version"], settings),
    }


def attachment(details: Mapping[str, Any], settings: Settings) -> Attachment:
    """The PDF of a closed report: its file name, and its content from the report store."""
    report = details["report"]
    name = f"{report['month']}-report-v{report['version']}.pdf"
    return Attachment(name, "application/pdf", _pdf(_Same(report, settings)))


class _Same:
    """A report for a cache: the same version in the same language is the same."""

    def __init__(self, report: Mapping[str, Any], settings: Settings) -> None:
        self.job = Job(report, settings.locale, settings.home, ("pdf",))
        self._key = (report["month"], report["version"], report["published_at"], settings.locale)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._key == self._key


@lru_cache(maxsize=2)
def _pdf(same: _Same) -> bytes:
    # Drawn once for all who get it.
    return same.job.run()["pdf"]


def _link(month: date, version: int, settings: Settings) -> str:
    """Where the page can be opened from elsewhere; nothing when it is only here, in a folder."""
    store = Store.of(settings)
    name = store.name(month, "html", version)
    if settings.desk_url:
        return f"{settings.desk_url}/reports/{name}"
    return "" if store.is_local else store.address(name)
