"""The document of a report: one dict for JSON, made from stored versions and from nothing else.

Every format is made from it. ``schema/prepaid-monthly-report-1.json`` says what it holds.
"""

import json
from collections.abc import Sequence
from typing import Any

from prepaid_pipeline.revenue.figures import closes_on, last_day
from prepaid_pipeline.revenue.report.content.figures import complete
from prepaid_pipeline.revenue.report.content.parts import COLLECTORS
from prepaid_pipeline.revenue.report.content.versions import Version

# Raised when a field changes its meaning or goes away; new fields do not change it.
SCHEMA = "prepaid-monthly-report/1"
_PARTS = (*COLLECTORS, "changes")


def document(versions: Sequence[Version], grace_days: int) -> dict[str, Any]:
    """The report of the last of a month's ``versions``."""
    latest = versions[-1]
    return {
        "schema": SCHEMA,
        "month": f"{latest.month:%Y-%m}",
        "status": "closed" if latest.is_closed else "preliminary",
        "version": latest.version,
        "measured_on": min(latest.cut_off, last_day(latest.month)).isoformat(),
        "cut_off": latest.cut_off.isoformat(),
        "closes_on": closes_on(latest.month, grace_days).isoformat(),
        "published_at": latest.published_at.isoformat(timespec="seconds"),
        "fingerprint": latest.fingerprint,
        "note": latest.note,
        "versions": [
            {
                "version": v.version,
                "cut_off": v.cut_off.isoformat(),
                "fingerprint": v.fingerprint,
                "note": v.note,
            }
            for v in versions
        ],
        "currencies": [complete(figures) for figures in latest.figures],
        **dict.fromkeys(_PARTS),
        "audit_seal": None,
        **(latest.document or {}),
    }


def as_json(report: dict[str, Any]) -> str:
    """The document as indented JSON."""
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
