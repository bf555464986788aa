"""Amounts and times as providers write them, and which of them the landing table's columns hold.

The database draws the same line (``prepaid.is_bearable``): beyond it a reader could stumble over
them, so that they are kept as text beside the record.
"""

import re
from decimal import Decimal

# Of an amount or a time that is kept as text, in characters.
LONGEST = 1_000
_DIGITS = 15
_YEARS = range(2, 9999)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?", re.ASCII)
_MOMENT = re.compile(
    r"(?P<sign>-?)(?P<year>[0-9]{1,9})-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9:.,]+ ?(?:Z|[+-][0-9:]{2,6})?)?|[+-]?infinity",
    re.ASCII | re.IGNORECASE,
)


def is_held(amount: Decimal) -> bool:
    """Whether the column takes the amount: at most 15 digits on each side of the point."""
    _, digits, exponent = amount.as_tuple()
    while len(digits) > 1 and digits[-1] == 0:
        digits, exponent = digits[:-1], int(exponent) + 1
    return amount.is_zero() or (amount.adjusted() < _DIGITS and int(exponent) >= -_DIGITS)


def is_beyond_amounts(text: str) -> bool:
    """Whether the text is a number, and one that the column does not hold."""
    return bool(_NUMBER.fullmatch(text)) and not is_held(Decimal(text))


def is_beyond_times(text: str) -> bool:
    """Whether the text is written as a time, and one that the column does not hold: infinity, or of
    a year that most programs do not have, such as 0 and 10000.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        return False
    return match["year"] is None or match["sign"] == "-" or int(match["year"]) not in _YEARS
