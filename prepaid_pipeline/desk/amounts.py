"""What a person may mean by an amount that they type: ``85,68`` and ``85.68`` are the same."""

import re
from decimal import Decimal

# As amounts stand on our pages, on a bank's and in a spreadsheet: 1,234.50, 1.234,50, 1 234.50.
_GROUP_MARKS = ",.' \N{RIGHT SINGLE QUOTATION MARK}\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
_GROUPED = re.compile(rf"[0-9]{{1,3}}([{_GROUP_MARKS}])[0-9]{{3}}(?:\1[0-9]{{3}})*")
_PLAIN = re.compile(r"[0-9]{1,15}")
_MOST_DECIMALS = 4


def meant(text: str) -> list[Decimal]:
    """The amounts that a text may stand for; none if it is no amount.

    Two where the mark is a comma or a point with three digits after it: 1,234 is a thousand and
    some in most currencies, and a little more than one in dinars (which have three decimals).
    """
    sign, number = _signed(text.strip())
    found = {whole: None for whole in (_whole(number), _with_decimals(number)) if whole is not None}
    return [sign * amount for amount in found]


def spellings(text: str) -> list[str]:
    """The text in lower case, and the amount that it is as the database and people write it."""
    found = [text.lower()]
    for amount in meant(text):
        plain, shown = f"{amount:f}", f"{amount:,f}"
        swapped = str.maketrans(",.", ".,")
        found += [plain, shown, plain.translate(swapped), shown.translate(swapped)]
    return list(dict.fromkeys(found))


def _signed(text: str) -> tuple[int, str]:
    if text[:1] in ("-", "\N{MINUS SIGN}"):
        return -1, text[1:].strip()
    return 1, text.removeprefix("+").strip()


def _whole(number: str) -> Decimal | None:
    if _PLAIN.fullmatch(number):
        return Decimal(number)
    if _GROUPED.fullmatch(number):
        return Decimal(re.sub(r"\D", "", number))
    return None


def _with_decimals(number: str) -> Decimal | None:
    mark = max(number.rfind(","), number.rfind("."))
    whole, decimals = number[:mark], number[mark + 1 :]
    if mark < 0 or not re.fullmatch(rf"[0-9]{{1,{_MOST_DECIMALS}}}", decimals):
        return None
    # A mark that already groups the thousands does not begin the decimals as well.
    before = None if number[mark] in whole else _whole(whole or "0")
    return None if before is None else Decimal(f"{before}.{decimals}")
