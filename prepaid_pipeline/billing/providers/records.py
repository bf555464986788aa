"""What every reader of a provider's file gives: payment records, and what is none."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple

from prepaid_pipeline.importer.reports import Problems

SUCCESS = "Success"
PENDING = "Pending"
FAILED = "Failed"
REFUNDED = "Refunded"
CHARGEBACK = "Chargeback"
REVERSED = "ChargebackReversed"
UNFINISHED = "Unfinished"
STATUSES = (SUCCESS, PENDING, FAILED, REFUNDED, CHARGEBACK, REVERSED, UNFINISHED)

# PostgreSQL indexes keys below 2,704 bytes: 200 characters each of what is indexed stay below.
LONGEST = 200


class Payment(NamedTuple):
    """One event of one payment, as it is stored.

    ``provider_ref`` names the payment, ``event_ref`` the event: two refunds of one payment at the
    same moment are two. ``amount`` is positive for every known status, in ``currency``'s major
    units. ``status`` is one of STATUSES or the provider's own word. ``occurred_at`` is a text where
    the provider names a time that cannot be held. ``original_refs`` may name the payment that was
    reversed, where ``provider_ref`` does not (None: it does). ``cumulative``: the amount is all
    that was refunded so far, and a dispute is told again in each file.

    Of an entry of a bank statement, whose references name several payments: ``entry_digest`` is a
    hash of all that the bank wrote about it, ``statement`` the number of the statement in the file.
    """

    line: int
    event_ref: str
    provider: str
    provider_ref: str
    invoice_number: str | None
    amount: Decimal
    currency: str
    status: str
    occurred_at: datetime | str
    customer_ref: str | None = None
    original_refs: list[str] | None = None
    cumulative: bool = False
    entry_digest: str | None = None
    statement: int | None = None


@dataclass
class Source:
    """A file that is being read: how, and what is told about it.

    ``provider`` is the name given by the caller, if any. ``zone`` is that of moments without an
    offset. ``on_read`` is told the bytes read so far. ``rows`` counts what could be a record;
    ``skipped`` what is not a customer's payment, by the provider's own word.
    """

    path: Path
    provider: str | None
    zone: tzinfo
    problems: Problems
    on_read: Callable[[int], None]
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class PaymentsReport:
    """The result of importing one file.

    ``rows`` were read; ``landed`` records are new in the database, ``known`` ones were there.
    ``skipped`` counts what is not a customer's payment, ``unknown`` the records whose status is the
    provider's own word.
    """

    file: str
    format: str
    status: Literal["imported", "unchanged", "refused"]
    rows: int = 0
    landed: int = 0
    known: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


class Fault(Exception):  # noqa: N818  (never leaves the readers; it becomes a line of the report)
    """A row cannot be read. Arguments: where in it, what was found, what was expected."""


@dataclass(frozen=True)
class Format:
    """A format that is read. ``name`` is typed after --format, ``title`` says what files are it.

    ``recognises`` is given the first bytes of a file, without byte order mark and blanks.
    ``has_entries``: its payments are entries of an account, with digests.
    """

    name: str
    title: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Source], Iterator[Payment]]
    has_entries: bool = False
