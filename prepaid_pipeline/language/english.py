"""Numbers and dates in English: of the command line, the sign-off pages and the mails.

Reports and receipts speak the installation's language: ``catalogue``.
"""

import calendar
import re
from datetime import UTC, date, datetime
from decimal import Decimal

# A number of four digits or more that stands by itself, with decimals or before a currency.
# (Without either it may be anything: a reference, a year, a task.)
_AMOUNT = re.compile(r"(?<![^\s(+])-?\d{4,}(?:\.\d+(?=[\s,;:)]|\.?$|\.\s)|(?= [A-Z]{3}\b))")


def money(amount: str | Decimal, exponent: int | None = None) -> str:
    """``455,661.00``: with ``exponent`` decimals, by default those of the stored amount.

    The exponent is the currency's (ISO 4217): 1,234.50 in USD, 1,235 in JPY.
    """
    decimals = "" if exponent is None else f".{exponent}"
    return f"{Decimal(amount):,{decimals}f}".replace("-", "\N{MINUS SIGN}")


def grouped(text: str) -> str:
    """A sentence with its amounts as ``money`` writes them: ``paid 1,190.00, invoiced 1,290.00``.

    For what the database says, which has amounts as they are stored.
    """
    return _AMOUNT.sub(lambda amount: money(amount[0]), text)


def words(code: str) -> str:
    """A code that is stored in plain words: ``payment_verification`` is payment verification."""
    return code.replace("_", " ")


def count(number: int) -> str:
    """A whole number with commas: ``2,709``."""
    return f"{number:,}"


def day(text: str | date) -> str:
    """A date in full: ``8 November 2026``."""
    value = date.fromisoformat(text) if isinstance(text, str) else text
    return f"{value.day} {calendar.month_name[value.month]} {value.year}"


def short_day(value: date) -> str:
    """A date with its month abbreviated: ``8 Nov 2026``."""
    return f"{value.day} {calendar.month_abbr[value.month]} {value.year}"


def minute(at: datetime) -> str:
    """``2026-11-08 14:05 UTC``: a moment to the minute, the same for everybody."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def month_name(text: str | date) -> str:
    """``October 2026``, of ``2026-10`` or the month's first day."""
    value = date.fromisoformat(f"{text}-01") if isinstance(text, str) else text
    return f"{calendar.month_name[value.month]} {value.year}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number and what it counts: ``1 payment``, ``2,709 payments``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def hours(number: Decimal) -> str:
    """``40 min``, ``5.2 h``, ``3.1 days``, of a number of hours."""
    if number < 1:
        return f"{round(number * 60)} min"
    return f"{number:.1f} h" if number < 48 else f"{number / 24:.1f} days"
