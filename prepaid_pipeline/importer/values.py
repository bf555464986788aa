"""What a field of an import file may hold: each parser returns what the database is given.

A parser takes the field's text without surrounding blanks, never empty, and raises BadValue with
what was expected instead.
"""

import re
from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal

from prepaid_pipeline.importer import delivered, terms
from prepaid_pipeline.importer.countries import COUNTRIES

Parser = Callable[[str], str]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# 15 digits before the point: more than any price in any currency, and far from an exponent.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,6}", re.ASCII)
_EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")
# Unicode's embeddings, overrides and isolates turn around how what follows is shown, up to an
# amount in a mail. The marks of right-to-left scripts (U+200F, U+061C) only say what a letter is.
_TURNS_AROUND = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_STATUSES = ("Pending", "Active", "Expired", "Cancelled")


class BadValue(Exception):  # noqa: N818  (never leaves the importer; its text is what was expected)
    """A field does not hold what its column expects."""


def words(text: str) -> str:
    """Any text that is shown in the order in which it is written."""
    if found := _TURNS_AROUND.search(text):
        raise BadValue(f"text without U+{ord(found[0]):04X}, which reverses what follows it")
    return text


def day(text: str) -> str:
    """A date YYYY-MM-DD; years outside 1900-2199 are slips of the keyboard."""
    if _DATE.fullmatch(text):
        try:
            if 1900 <= date.fromisoformat(text).year < 2200:
                return text
        except ValueError:
            pass
    raise BadValue("a date such as 2026-01-31")


def month(text: str) -> str:
    """A month YYYY-MM, as its first day."""
    try:
        return day(f"{text}-01")
    except BadValue:
        raise BadValue("a month such as 2026-01") from None


def moment(zone: tzinfo) -> Parser:
    """A parser of ISO 8601 date and time; what names no offset is local time in ``zone``."""

    def parse(text: str) -> str:
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise BadValue("a date and time such as 2026-01-31T10:15:00Z") from None
        return (value if value.tzinfo else value.replace(tzinfo=zone)).isoformat()

    return parse


def local_day(zone: tzinfo) -> Parser:
    """A parser of dates that also takes a moment (ISO 8601 date and time): the day on which it was
    in ``zone``. What names no offset is local time there.
    """

    def parse(text: str) -> str:
        try:
            if not _MOMENT.fullmatch(text):
                return day(text)
            value = datetime.fromisoformat(text)
            local = value.astimezone(zone) if value.tzinfo else value
            return day(local.date().isoformat())
        except (BadValue, ValueError, OverflowError):
            raise BadValue(
                "a date such as 2026-01-31, or a moment such as 2026-01-31T23:30:00+01:00"
            ) from None

    return parse


def or_as_delivered(is_beyond: Callable[[str], bool], parse: Parser) -> Parser:
    """A parser of what the landing table takes: also of what its column does not hold, which gets a
    blank before it, as no other value has (``sql/importer/transactions.sql``).
    """
    return lambda text: f" {text}" if is_beyond(text) else parse(text)


def number(text: str) -> str:
    """A decimal number, negative ones too."""
    if not _NUMBER.fullmatch(text):
        raise BadValue("a number with a decimal point such as 1234.50")
    return text


delivered_number = or_as_delivered(delivered.is_beyond_amounts, number)


def delivered_moment(zone: tzinfo) -> Parser:
    """A parser of moments (``moment``), also of those that the landing table does not hold."""
    return or_as_delivered(delivered.is_beyond_times, moment(zone))


def price(text: str) -> str:
    """A decimal number of 0 or more."""
    if not _NUMBER.fullmatch(text):
        raise BadValue("a price with a decimal point such as 1234.50")
    if text.startswith("-"):
        raise BadValue("a price of 0 or more")
    return text


def rate(text: str) -> str:
    """A tax rate as a fraction."""
    if not _NUMBER.fullmatch(text) or not 0 <= Decimal(text) <= 1:
        raise BadValue("a fraction from 0 to 1 (0.19 is 19 %)")
    return text


def percentage(text: str) -> str:
    """A percentage above 0 and up to 100, as it was written. Raises BadValue."""
    if not _NUMBER.fullmatch(text) or not 0 < Decimal(text) <= 100:
        raise BadValue("a percentage above 0 and up to 100 (15 is 15 %)")
    return text


def positive(text: str) -> str:
    """An amount above 0, as it was written. Raises BadValue."""
    if not _NUMBER.fullmatch(text) or Decimal(text) <= 0:
        raise BadValue("an amount above 0 with a decimal point such as 12.50")
    return text


def exchange_rate(text: str) -> str:
    """What one unit of a currency is worth in the other, above 0. Raises BadValue."""
    if not _NUMBER.fullmatch(text) or Decimal(text) <= 0:
        raise BadValue("a rate above 0 with a decimal point such as 1.0823")
    return text


def count(least: int) -> Parser:
    """A parser of whole numbers from ``least`` to 999,999."""

    def parse(text: str) -> str:
        if not _WHOLE.fullmatch(text) or int(text) < least:
            raise BadValue(f"a whole number from {least} to 999999")
        return text

    return parse


def truth(text: str) -> str:
    """``true`` or ``false``. Raises BadValue."""
    if text not in ("true", "false"):
        raise BadValue("true or false")
    return text


def term(text: str) -> str:
    """An ISO 8601 duration of months or of days."""
    try:
        return terms.format(terms.parse(text))
    except ValueError:
        raise BadValue("an ISO 8601 duration such as P1M, P1Y or P30D") from None


def country(text: str) -> str:
    """An ISO 3166-1 alpha-2 code. Raises BadValue."""
    if text not in COUNTRIES:
        raise BadValue("an ISO 3166 country code such as US")
    return text


def email(text: str) -> str:
    """A mail address: something on both sides of one @, and no blanks or line breaks."""
    if not _EMAIL.fullmatch(text):
        raise BadValue("an email address such as billing@example.com, or nothing")
    return words(text)


def status(text: str) -> str:
    """The status of a term."""
    if text not in _STATUSES:
        raise BadValue("one of " + ", ".join(_STATUSES))
    return text


def addon_code(text: str) -> str:
    """A code that subscriptions.csv can name: ``;`` separates codes there, ``*`` says how many."""
    if ";" in text or "*" in text:
        raise BadValue("an addon_code without ; and *")
    return text


def codes(text: str) -> str:
    """Codes separated by semicolons, each once; ``code*3`` is three of it."""
    found: dict[str, str] = {}
    for entry in filter(None, (entry.strip() for entry in text.split(";"))):
        code, times, number = (part.strip() for part in entry.partition("*"))
        if times and not (code and _WHOLE.fullmatch(number) and int(number) >= 1):
            raise BadValue("add-ons such as storage or storage*3, separated by ;")
        if code in found:
            raise BadValue("each add-on once, separated by ;")
        found[code] = f"{code}*{int(number)}" if times and int(number) > 1 else code
    return ";".join(found.values())
