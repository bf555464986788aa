"""How settings are read from text.

A parser returns the value or raises ValueError; its text follows the name of the variable and says
what the value is and what is expected, such as ``='x': expected a month such as 2015-01``.
"""

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator

# The most days, for settings that count days.
YEAR = 366
SECRET_LENGTH = 32


def parsed(parse: Callable[[str], object], expected: str) -> BeforeValidator:
    """Read a setting by ``parse``, which raises ValueError for what is not ``expected``."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except ValueError:
            raise ValueError(f"={text!r}: expected {expected}") from None

    return BeforeValidator(read)


def whole_number(lowest: int, highest: int, none: str | None = None) -> BeforeValidator:
    """Read a whole number in a range, or the word that stands for None."""

    def read(text: str) -> int | None:
        if none is not None and text.strip() == none:
            return None
        if not lowest <= (value := int(text)) <= highest:
            raise ValueError(text)
        return value

    expected = f"a whole number from {lowest} to {highest}"
    return parsed(read, expected if none is None else f"{expected}, or {none}")


def percentage(text: str) -> Decimal:
    """A percentage from 0 to 100, with a point before its decimals. Raises ValueError."""
    try:
        value = Decimal(text.strip().removesuffix("%"))
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or not 0 <= value <= 100:
        raise ValueError(text)
    return value


def one_of(*words: str) -> BeforeValidator:
    """Read one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parsed(read, " or ".join(words))


def pattern(regex: str, expected: str) -> BeforeValidator:
    """Read a text that a regular expression describes from its first to its last character."""

    def read(text: str) -> str:
        if not re.fullmatch(regex, text, re.ASCII):
            raise ValueError(text)
        return text

    return parsed(read, expected)


def parse_month(text: str) -> date:
    """The first day of a month written as YYYY-MM. Raises ValueError."""
    if len(text) != len("2026-01"):
        raise ValueError(text)
    return date.fromisoformat(f"{text}-01")


def zone(text: str) -> ZoneInfo:
    """A time zone of the IANA database."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(text) from None


def rising_days(text: str) -> tuple[int, ...]:
    """Days such as 3,7,14; none or nothing: no days."""
    if text.strip() in ("", "none"):
        return ()
    days = tuple(int(part) for part in text.split(","))
    if days[0] < 1 or days[-1] > YEAR or list(days) != sorted(set(days)):
        raise ValueError(text)
    return days


def addresses(text: str) -> tuple[str, ...]:
    """Email addresses, each once, in their order."""
    found = parts(text, ",")
    for part in found:
        if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", part):
            raise ValueError(
                f": {part!r} is not an email address: expected addresses separated by commas,"
                " such as board@example.com,cfo@example.com"
            )
    return tuple(dict.fromkeys(found))


def approval_limits(text: str) -> dict[str, Decimal]:
    """Amounts by currency (ISO 4217), such as USD:1000;EUR:900."""
    limits: dict[str, Decimal] = {}
    for part in parts(text, ";"):
        currency, _, amount = (piece.strip() for piece in part.partition(":"))
        try:
            limit = Decimal(amount)
        except InvalidOperation:
            limit = Decimal("NaN")
        known = len(currency) == 3 and currency.isascii() and currency.isupper()
        if not known or currency in limits or not limit.is_finite() or limit < 0:
            raise ValueError(
                f": {part!r} cannot be read: expected each currency once with an amount of 0"
                " or more, such as USD:1000;EUR:900"
            )
        limits[currency] = limit
    return limits


def origin(text: str) -> str:
    """An http or https address without a path; what comes back has no slash at the end."""
    address = urlsplit(text)
    if address.scheme not in ("http", "https") or not address.hostname or address.path.strip("/"):
        raise ValueError(text)
    return f"{address.scheme}://{address.netloc}"


def unguessable(text: str) -> str:
    """A text that nobody guesses. The error does not show it: it may be most of a real one."""
    if len(text) < SECRET_LENGTH:
        raise ValueError(f" has {len(text)} characters: expected {SECRET_LENGTH} or more")
    return text


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which nobody else can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parts(text: str, separator: str) -> tuple[str, ...]:
    """What stands between separators, without the blanks around it; empty parts are left out."""
    return tuple(part for piece in text.split(separator) if (part := piece.strip()))
