"""A Stripe export as a table: which one it is, where its columns are, how its values are written.

Column names change over the years and with the columns that a person picks for the export, so they
are known by several names; columns that say nothing to us are passed over. Sources of the names:

- docs.stripe.com/reports/report-types/balance (Balance change from activity, itemized):
  balance_transaction_id, created_utc, currency, gross, fee, net, reporting_category, source_id,
  description, customer_facing_amount, customer_facing_currency, charge_id, payment_metadata[key];
  docs.stripe.com/reports/options: amounts in major units, decimal separator point or comma.
- The Dashboard's balance history of 2014 to 2024: id, Type, Source, Amount, Fee, Net, Currency,
  Created (UTC), Description, Customer Facing Amount, Customer Facing Currency, key (metadata).
- The Dashboard's payments export (support.stripe.com/questions/exporting-payment-reports): id,
  Created date (UTC) or Created (UTC) or Created, Amount, Amount Refunded, Currency, Captured, Mode,
  Status, Refunded date (UTC), Disputed Amount, Dispute Status, Dispute Date (UTC), key (metadata).
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

from prepaid_pipeline.billing.providers.records import LONGEST, Fault
from prepaid_pipeline.importer import delivered
from prepaid_pipeline.importer.reports import quoted

_PLAIN = re.compile(r"[^a-z0-9]+")
_METADATA = re.compile(r"(?:([a-z_]*)metadata\[(.+)\]|(.+) \(metadata\))", re.IGNORECASE)
# Any number of digits: what the column does not hold is kept as it was delivered.
_AMOUNT = re.compile(r"-?[0-9]{1,1000}(?:([.,])([0-9]{1,1000}))?", re.ASCII)
BALANCE = ("currency", "created", "amount", "kind", "id")
PAYMENTS = ("currency", "created", "amount", "amount_refunded", "status", "id")
# Our name -> the names of Stripe's, as plain() writes them; the first that there is counts.
_NAMES = {
    "id": ("balance_transaction_id", "id"),
    "kind": ("reporting_category", "type"),
    "source": ("source_id", "source"),
    "charge": ("charge_id",),
    "amount": ("gross", "amount"),
    "currency": ("currency",),
    "created": ("created_utc", "created_date_utc", "created"),
    "facing_amount": ("customer_facing_amount",),
    "facing_currency": ("customer_facing_currency",),
    "description": ("description",),
    "amount_refunded": ("amount_refunded",),
    "refunded": ("refunded_date_utc",),
    "captured": ("captured",),
    "status": ("status",),
    "mode": ("mode",),
    "disputed_amount": ("disputed_amount",),
    "dispute_status": ("dispute_status",),
    "disputed": ("dispute_date_utc",),
}


def plain(name: str) -> str:
    """A column's name without case, blanks and brackets: ``Created (UTC)`` is created_utc."""
    return _PLAIN.sub("_", name.lower()).strip("_")


class Header:
    """The header of an export: ``find`` and ``metadata`` tell where a row has what."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name.strip() for name in names]
        self._plain: dict[str, list[int]] = {}
        self._metadata: dict[str, list[tuple[bool, int]]] = {}
        for position, name in enumerate(self.names):
            if match := _METADATA.fullmatch(name):
                owner, key = match[1] or "", match[2] or match[3]
                # What the payment itself has comes before what its refund or customer has.
                entry = (owner not in ("", "payment_"), position)
                self._metadata.setdefault(key.strip().lower(), []).append(entry)
            else:
                self._plain.setdefault(plain(name), []).append(position)

    def find(self, column: str) -> int | None:
        """Where a column of ours is. Raises Fault if two have its name."""
        for name in _NAMES[column]:
            if positions := self._plain.get(name):
                if len(positions) > 1:
                    raise Fault(self.names[positions[0]], "this column twice", "it once")
                return positions[0]
        return None

    def metadata(self, key: str) -> list[int]:
        """The columns of a metadata key, the payment's own before its refund's or customer's."""
        return [position for _, position in sorted(self._metadata.get(key, []))]

    def has(self, columns: Sequence[str]) -> bool:
        """Whether the file has all of these columns, each under any of its names."""
        return all(any(name in self._plain for name in _NAMES[column]) for column in columns)


class Row:
    """One row of an export, its values by our names of the columns."""

    def __init__(self, header: Header, line: int, fields: Sequence[str], zone: tzinfo) -> None:
        self.line = line
        self._header = header
        self._fields = fields
        self._zone = zone

    def text(self, column: str) -> str:
        """The field without blanks around it; empty where the export has no such column."""
        position = self._header.find(column)
        return "" if position is None else self._fields[position].strip()

    def metadata(self, key: str) -> str | None:
        """The first value of a metadata key that is not empty."""
        for position in self._header.metadata(key):
            if value := self._fields[position].strip():
                return self._short(position, value)
        return None

    def reference(self, column: str) -> str:
        """A reference of Stripe's; empty where there is none. Raises Fault if it is too long."""
        position = self._header.find(column)
        return "" if position is None else self._short(position, self._fields[position].strip())

    def amount(self, column: str) -> Decimal:
        """An amount in major units. Raises Fault.

        A comma is the decimal sign where three digits behind it do not leave that open.
        """
        text = self.text(column)
        if delivered.is_beyond_amounts(text):
            return Decimal(text)
        match = _AMOUNT.fullmatch(text)
        if match is None:
            raise self.fault(column, "a decimal number such as 1234.50")
        if match[1] == "," and len(match[2]) == 3:
            raise self.fault(column, "a decimal point: with a comma it could be thousands")
        return Decimal(text.replace(",", "."))

    def moment(self, column: str) -> datetime | str:
        """A date and time: UTC where the column says so, else local where no offset is named. The
        text itself if it is a time that cannot be held. Raises Fault.
        """
        if delivered.is_beyond_times(self.text(column)):
            return self.text(column)
        position = self._header.find(column)
        utc = position is not None and plain(self._header.names[position]).endswith("utc")
        try:
            moment = datetime.fromisoformat(self.text(column))
        except ValueError:
            raise self.fault(column, "a date and time such as 2026-01-31 10:15:00") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC if utc else self._zone)

    def fault(self, column: str, expected: str) -> Fault:
        """The error of a field: what was found and what was expected."""
        position = self._header.find(column)
        name = column if position is None else self._header.names[position]
        return Fault(name, quoted(self.text(column)), expected)

    def _short(self, position: int, value: str) -> str:
        if len(value) > LONGEST:
            name = self._header.names[position]
            raise Fault(name, f"{len(value):,} characters", f"at most {LONGEST}")
        return value
