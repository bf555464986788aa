"""The length of a term, written as an ISO 8601 duration: P1M, P3M, P1Y, P2W, P7D, P30D.

A term is either months or days, never both: P30D and P1M are two different terms on a price list.
"""

import re
from dataclasses import dataclass

# What the tables plans and addon_prices accept: a century.
MAX_MONTHS = 1200
MAX_DAYS = 36500

_MONTHS = re.compile(r"P(?:([0-9]{1,5})Y)?(?:([0-9]{1,5})M)?", re.ASCII)
_DAYS = re.compile(r"P([0-9]{1,5})([WD])", re.ASCII)


@dataclass(frozen=True)
class Term:
    """The length of one prepaid term: ``months`` or ``days``, the other one is 0."""

    months: int = 0
    days: int = 0


def parse(text: str) -> Term:
    """The term that an ISO 8601 duration stands for; a year is 12 months, a week 7 days.

    Raises ValueError for anything else: months together with days, a term of no length or one that
    is longer than 100 years.
    """
    if days := _DAYS.fullmatch(text):
        term = Term(days=int(days[1]) * (7 if days[2] == "W" else 1))
    elif months := _MONTHS.fullmatch(text):
        term = Term(months=12 * int(months[1] or 0) + int(months[2] or 0))
    else:
        raise ValueError(
            f"{text!r} is not a term length: expected an ISO 8601 duration such as P1M or P30D"
        )
    if not (0 < term.months <= MAX_MONTHS or 0 < term.days <= MAX_DAYS):
        raise ValueError(
            f"{text!r} is not a term length: expected a length from one day to 100 years"
        )
    return term


def format(term: Term) -> str:
    """The shortest usual writing: full years as P1Y, other months as P3M, days as P7D."""
    if term.days:
        return f"P{term.days}D"
    if term.months % 12 == 0:
        return f"P{term.months // 12}Y"
    return f"P{term.months}M"
