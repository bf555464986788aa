"""Writing a mail: the subject, text and HTML of its template, as one message (RFC 5322)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from email.headerregistry import Address
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from prepaid_pipeline.addresses import one_line, recipient_address
from prepaid_pipeline.language.english import count, day, grouped, money
from prepaid_pipeline.language.mail_words import origin, percentage, times
from prepaid_pipeline.mail import mime, receipt, report
from prepaid_pipeline.mail.transport import sender_address
from prepaid_pipeline.settings.load import Settings

_TEMPLATES = Path(__file__).parent / "templates"
_WIDTH = 44
# Nobody reads more of a list in a mail; how many more there are is said.
_LISTED = 50


@dataclass(frozen=True)
class Message:
    """A written mail; ``content`` are the bytes that every attempt sends."""

    message_id: str
    content: bytes


def write(details: Mapping[str, Any], settings: Settings) -> Message:
    """Write the mail of one row of the outbox (sql/mail/outbox.sql, part ``details``).

    The same row always gives the same Message-ID: a mail that arrives twice can be recognised.
    Raises ValueError for an address that cannot be one, and Jinja's errors.
    """
    sender = sender_address(settings)
    ordered: datetime = details["created_at"]
    corrected = f".{details['corrections']}" if details["corrections"] else ""
    message_id = (
        f"<{details['email_id']}.{int(ordered.timestamp() * 1_000_000):x}{corrected}.prepaid"
        f"@{sender.domain}>"
    )
    name, values = details["template"], _values(details, settings)
    headers: list[tuple[str, str | Address]] = [
        ("From", sender),
        ("To", recipient_address(details["recipient"], details["customer_name"])),
        ("Subject", one_line(_render(f"{name}.subject", values))),
        ("Date", format_datetime(ordered.astimezone(settings.timezone))),
        ("Message-ID", message_id),
        # RFC 3834: nobody's out-of-office reply is wanted.
        ("Auto-Submitted", "auto-generated"),
    ]
    plain, html = _render(f"{name}.txt", values), _render(f"{name}.html", values)
    made_by = report if name == report.TEMPLATE else receipt
    attached = made_by.attachment(details, settings)
    files = [] if attached is None else [attached]
    return Message(message_id, mime.message(headers, plain, html, files, seed=message_id))


def _values(details: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    if details["template"] == "overdue_tasks":
        return _overdue(details) | {"desk": settings.desk_url}
    if details["template"] == report.TEMPLATE:
        return report.values(details, settings)
    # Terms are [start, end): the last day that is paid for is the one before the end.
    return {**details, "last_day": details["end_date"] - timedelta(days=1)}


def _overdue(details: Mapping[str, Any]) -> dict[str, Any]:
    listed = details["overdue"]
    # One that was decided a moment ago is left out, unless nothing else would be left.
    tasks = [task for task in listed if task["open"]] or listed
    return {
        "tasks": [{**t, "due_on": date.fromisoformat(t["due_on"])} for t in tasks[:_LISTED]],
        "more": max(0, len(tasks) - _LISTED),
        "escalated": details["occasion"].startswith("escalated"),
    }


def _render(name: str, values: Mapping[str, Any]) -> str:
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=count,
        grouped=grouped,
        money=money,
        percentage=percentage,
        day=day,
        origin=origin,
        times=times,
        column=lambda text: str(text).ljust(_WIDTH),
    )
    return environment
