"""Rounding for the eye: what a reader adds up on the page adds up.

Amounts are unrounded until here. A total is rounded half up; its parts are rounded so that they add
up to it (largest remainder), each at most one minor unit from its exact value.
"""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal


def rounded(amount: Decimal, exponent: int) -> Decimal:
    """``amount`` with ``exponent`` decimals, half up."""
    return amount.quantize(Decimal(1).scaleb(-exponent), ROUND_HALF_UP)


def parts(amounts: Sequence[Decimal], exponent: int, total: Decimal) -> list[Decimal]:
    """``amounts`` rounded so that their sum is ``total``; ties go to the earlier part.

    ``total`` is the rounded sum, or the difference of two rounded totals that differ by the sum.
    """
    unit = Decimal(1).scaleb(-exponent)
    floors = [amount.quantize(unit, ROUND_FLOOR) for amount in amounts]
    missing = int((total - sum(floors, Decimal(0))) / unit)
    if not 0 <= missing <= len(amounts):
        raise ValueError(f"{total} is not the sum of {len(amounts)} parts to within their rounding")
    by_remainder = sorted(range(len(amounts)), key=lambda i: floors[i] - amounts[i])
    for i in by_remainder[:missing]:
        floors[i] += unit
    return floors


def text(amount: Decimal) -> str:
    """A plain decimal: not 0E-9 and not -0.00."""
    return f"{amount if amount else abs(amount):f}"
