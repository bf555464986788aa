"""The formats that are read."""

from collections.abc import Callable, Iterator

from prepaid_pipeline.providers import stripe
from prepaid_pipeline.providers.records import Payment, Source

READERS: dict[str, Callable[[Source], Iterator[Payment]]] = {"stripe": stripe.read}


def detect() -> str:
    """The format of a file that does not say it."""
    return "stripe"
