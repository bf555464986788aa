"""Our document numbers in what a customer, a bank or a provider wrote."""

import re
from collections.abc import Iterable

# Invoices and credit notes: series, year, number of six digits or more (prepaid.invoice_number).
_SERIES = ("INV", "CN")
# Banks break lines anywhere, insert blanks and change case; they add and leave out nothing else.
_GAP = r"\s*"
_NUMBER = re.compile(
    r"(?<![A-Z0-9])"
    rf"({'|'.join(_GAP.join(series) for series in _SERIES)}){_GAP}-{_GAP}"
    rf"([0-9](?:{_GAP}[0-9]){{3}}){_GAP}-{_GAP}"
    rf"([0-9](?:{_GAP}[0-9]){{5}}[0-9]*)(\s+[0-9])?",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s+")


def found_in(text: str) -> set[str]:
    """Every document number that the text can mean, as we write it (``INV-2026-000017``).

    A number of seven digits never starts with 0: what is longer and does is none of ours, and six
    digits behind which a blank and a digit follow are the number, unless they start with 1 to 9:
    then it could also be a longer one that the bank broke, and both are returned.
    """
    numbers = set[str]()
    for match in _NUMBER.finditer(text):
        series, year, number, more = (
            _BLANKS.sub("", part or "").upper() for part in match.groups()
        )
        if len(number) > 6 and number.startswith("0"):
            continue
        numbers.add(f"{series}-{year}-{number}")
        if more and not number.startswith("0"):
            numbers.add(f"{series}-{year}-{number}{more}")
    return numbers


def only_one(texts: Iterable[str | None]) -> str | None:
    """The document number of the first text that has any, if it has exactly one; never guessed."""
    for text in texts:
        if text and (numbers := found_in(text)):
            return numbers.pop() if len(numbers) == 1 else None
    return None
