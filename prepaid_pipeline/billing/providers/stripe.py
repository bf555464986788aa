"""Stripe's CSV exports: balance transactions and payments."""

from collections.abc import Callable, Iterator

from prepaid_pipeline.billing.providers import stripe_balance, stripe_payments, stripe_table
from prepaid_pipeline.billing.providers.records import Fault, Format, Payment, Source
from prepaid_pipeline.billing.providers.stripe_table import Header, Row
from prepaid_pipeline.importer.csv_records import CsvRecords
from prepaid_pipeline.importer.reports import quoted

_EXPECTED = (
    "Stripe's balance transactions (reporting_category or Type, gross or Amount, currency, "
    "created) or payments (id, Created date (UTC), Amount, Amount Refunded, Currency, Status)"
)
Meaning = Callable[[Row, Source], Iterator[Payment]]


def meaning_of(header: Header) -> Meaning | None:
    """How the rows of an export are to be read; None if the header is none of Stripe's."""
    if header.has(stripe_table.PAYMENTS):
        return stripe_payments.payments
    if header.has(stripe_table.BALANCE):
        return stripe_balance.payments
    return None


def read(source: Source) -> Iterator[Payment]:
    """The payment records of an export; what cannot be read goes to ``source.problems``."""
    with source.path.open("rb") as stream:
        table = CsvRecords(stream, source.problems, source.on_read)
        records = iter(table)
        first = next(records, None)
        if first is None:
            if not source.problems:
                source.problems.add(1, "-", "an empty file", _EXPECTED)
            return
        header = Header(first[1])
        table.columns = header.names
        meaning = meaning_of(header)
        if meaning is None:
            source.problems.add(1, "-", f"the header {quoted(','.join(header.names))}", _EXPECTED)
            return
        for line, fields in records:
            source.rows = table.rows
            try:
                if len(fields) != len(header.names):
                    expected = f"{len(header.names)}, one for each column"
                    raise Fault("-", f"{len(fields)} fields", expected)
                yield from list(meaning(Row(header, line, fields, source.zone), source))
            except Fault as fault:
                source.problems.add(line, *fault.args)
        source.rows = table.rows


FORMAT = Format("stripe", "Stripe's CSV exports", lambda _: True, read)
