"""Numbers and dates as the command line and the sign-off pages show them, which speak English."""

import calendar
from datetime import date
from decimal import Decimal


def money(amount: str | Decimal) -> str:
    """``455,661.00``; the decimals are those of the stored amount, so the currency's."""
    return f"{Decimal(amount):,f}".replace("-", "\N{MINUS SIGN}")


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
