"""The formats that are read, in the order in which a file is asked whether it is one."""

from pathlib import Path

from prepaid_pipeline.billing.providers import camt053, stripe
from prepaid_pipeline.billing.providers.records import Format

# The last one recognises every file: its reader says what is wrong with one that is nothing.
FORMATS: tuple[Format, ...] = (camt053.FORMAT, stripe.FORMAT)
BY_NAME = {found.name: found for found in FORMATS}
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_START = 1024


def recognised(path: Path) -> Format:
    """The format of a file, from its first bytes. Raises OSError."""
    with path.open("rb") as stream:
        start = stream.read(_START)
    for mark in _BOMS:
        start = start.removeprefix(mark)
    # In UTF-16 every other byte of the first signs is 0.
    start = start.lstrip(b"\0 \t\r\n")
    return next(found for found in FORMATS if found.recognises(start))
