"""Templates: the environment with the filters that pages share, and the static files' versions."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prepaid_pipeline.language.english import (
    count,
    day,
    grouped,
    hours,
    money,
    month_name,
    plural,
    short_day,
    words,
)
from prepaid_pipeline.process import events
from prepaid_pipeline.teams import Team

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
_KINDS = {
    "payment_verification": "Payment to verify",
    "payment_review": "Parked payment",
    "payment_refund": "Refund to pay",
    "price_concession": "Price to approve",
    "quality_check": "Quality check",
    "quality_follow_up": "Follow-up",
}


def environment(timezone: ZoneInfo) -> Environment:
    """The pages' templates; moments are shown in the installation's time zone."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "money": money,
        "count": count,
        "grouped": grouped,
        "day": day,
        "short_day": short_day,
        "month": month_name,
        "moment": _moment(timezone),
        "kind": lambda kind: _KINDS.get(kind, kind),
        "team": lambda team: Team(team).label,
        "words": words,
        "what": events.what,
        "plural": plural,
        "hours": hours,
        "first_up": lambda text: str(text)[:1].upper() + str(text)[1:],
    }
    made.globals |= {"style_version": version("desk.css"), "Team": Team}
    return made


def _moment(timezone: ZoneInfo) -> Callable[[datetime | str], str]:
    def moment(value: datetime | str) -> str:
        try:
            local = value.astimezone(timezone) if isinstance(value, datetime) else None
        except OverflowError:
            local = None
        if local is None:  # Infinity, or of a year that a datetime does not have.
            return str(value)
        return f"{short_day(local.date())}, {local:%H:%M}"

    return moment


@cache
def version(name: str) -> str:
    """A name for the content of a static file: a changed file is fetched again."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def address(path: str, **values: Any) -> str:
    """A path with those of ``values`` that say something as its query."""
    told = {name: value for name, value in values.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(told, doseq=True)}" if told else path
