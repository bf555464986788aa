"""How rates and the lines of an invoice are written in mails."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from prepaid_pipeline.language.english import money


def percentage(rate: Decimal | str | None) -> str:
    """A tax rate as people write it: 0.0725 is 7.25 %; none at all is exempt."""
    if rate is None:
        return "exempt"
    return f"{(Decimal(rate) * 100).normalize():f} %"


def origin(line: Mapping[str, Any], exponent: int) -> str:
    """How a line's net came about, where that is not its price alone; else nothing.

    3 × 11.90 = 35.70 including tax, less 3.57.
    """
    parts = []
    if line["quantity"] != 1:
        unit = money(line["unit_price"], exponent)
        parts.append(f"{line['quantity']} × {unit} =")
    discount = Decimal(line["discount"])
    taxed = line["includes_tax"] and Decimal(line["tax"]) > 0
    if parts or discount or taxed:
        parts.append(money(line["list_amount"], exponent))
    if taxed:
        parts.append("including tax")
    text = " ".join(parts)
    return f"{text}, less {money(discount, exponent)}" if discount else text


def times(name: str, quantity: int) -> str:
    """A name with how many of it there are, if more than one: 3 × Storage."""
    return name if quantity == 1 else f"{quantity} × {name}"
