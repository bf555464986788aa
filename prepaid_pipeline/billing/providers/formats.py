"""The formats that are read, and how a file says which one it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

from prepaid_pipeline.billing.providers import camt053, stripe
from prepaid_pipeline.billing.providers.records import Payment, Source

READERS: dict[str, Callable[[Source], Iterator[Payment]]] = {
    "stripe": stripe.read,
    "camt053": camt053.read,
}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def detect(path: Path) -> str:
    """The format of a file, from its first bytes: XML is a statement, all else an export.

    Raises OSError.
    """
    with path.open("rb") as stream:
        start = stream.read(1024)
    for mark in _BOMS:
        start = start.removeprefix(mark)
    # In UTF-16 every other byte of the first signs is 0.
    return "camt053" if start.lstrip(b"\0 \t\r\n").startswith(b"<") else "stripe"
