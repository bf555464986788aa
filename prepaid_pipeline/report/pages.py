"""Reports as JSON and HTML: one document, made from a stored version, rendered twice."""

import calendar
import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prepaid_pipeline.report.figures import complete
from prepaid_pipeline.report.versions import Version
from prepaid_pipeline.revenue import closes_on, last_day
from prepaid_pipeline.rules import KINDS

# Raised when a field changes its meaning or goes away; new fields do not change it.
SCHEMA = "prepaid-monthly-report/1"
_TEMPLATES = Path(__file__).parent / "templates"


def document(versions: Sequence[Version], grace_days: int) -> dict[str, Any]:
    """The report of the last of a month's ``versions`` as a dict for JSON."""
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
        "note": latest.note,
        "versions": [
            {"version": v.version, "cut_off": v.cut_off.isoformat(), "note": v.note}
            for v in versions
        ],
        "currencies": [complete(figures) for figures in latest.figures],
    }


def as_json(report: dict[str, Any]) -> str:
    """The document as indented JSON."""
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def as_html(report: dict[str, Any]) -> str:
    """The document as a page of its own: no script, no request to anywhere."""
    return _environment().get_template("report.html.j2").render(report=report) + "\n"


def index_html(latest: Sequence[Version]) -> str:
    """The list of all months, newest first."""
    return _environment().get_template("index.html.j2").render(latest=latest) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": money,
        "signed": signed,
        "count": count,
        "day": day,
        "month": month_name,
        "per_cent": per_cent,
        "share": share,
        "widest": widest,
        "by_plan": by_plan,
    }
    return environment


def money(amount: str | Decimal) -> str:
    """``455,661.00``; the decimals are those of the stored amount, so the currency's."""
    return f"{Decimal(amount):,f}".replace("-", "\N{MINUS SIGN}")


def signed(amount: str | Decimal) -> str:
    """``+1,200.00``, ``-80.00`` with a real minus sign, ``0.00``."""
    number = Decimal(amount)
    return ("+" if number > 0 else "") + money(number)


def count(number: int) -> str:
    """``2,709``."""
    return f"{number:,}"


def day(text: str | date) -> str:
    """``8 November 2026``."""
    value = date.fromisoformat(text) if isinstance(text, str) else text
    return f"{value.day} {calendar.month_name[value.month]} {value.year}"


def month_name(text: str | date) -> str:
    """``October 2026``, of ``2026-10`` or the month's first day."""
    value = date.fromisoformat(f"{text}-01") if isinstance(text, str) else text
    return f"{calendar.month_name[value.month]} {value.year}"


def per_cent(part: str | int | Decimal, whole: str | int | Decimal) -> str:
    """``12.3 %`` of the whole, one decimal; a dash when there is no whole."""
    whole = Decimal(whole)
    return f"{share(part, whole):,.1f} %".replace("-", "\N{MINUS SIGN}") if whole else "\N{EN DASH}"


def share(part: str | int | Decimal, whole: str | int | Decimal) -> Decimal:
    """``part`` as a percentage of ``whole`` with one decimal; 0 when there is no whole."""
    whole = Decimal(whole)
    if not whole:
        return Decimal(0)
    return (Decimal(part) * 100 / whole).quantize(Decimal("0.1"))


def widest(movements: Sequence[dict[str, Any]]) -> Decimal:
    """The largest amount among the movements, whichever way: the length of a full bar."""
    return max(abs(Decimal(movement["amount"])) for movement in movements)


def by_plan(activations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per plan with the number of each kind and the net amount, and a last one for all."""
    rows = []
    for key in (*dict.fromkeys(a["plan_code"] for a in activations), None):
        of_plan = [a for a in activations if key in (a["plan_code"], None)]
        row = {
            "name": of_plan[0]["name"] if key is not None else "All plans",
            "net_amount": sum(Decimal(a["net_amount"]) for a in of_plan),
            **{kind: sum(a["plans"] for a in of_plan if a["kind"] == kind) for kind in KINDS},
        }
        rows.append(row)
    return rows
