"""ISO 20022 camt.053 statements: which entries are payments of customers, and what they mean.

Sources: the message definition reports of iso20022.org (BankToCustomerStatement, versions 02 to 13)
for the elements; RvslInd: "the entry is the result of a reversal", with CdtDbtInd as it is booked.
"""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, cast

from lxml import etree

from prepaid_pipeline.billing.providers import camt_entry
from prepaid_pipeline.billing.providers.camt_entry import Detail, Entry
from prepaid_pipeline.billing.providers.records import (
    CHARGEBACK,
    LONGEST,
    PENDING,
    REFUNDED,
    SUCCESS,
    Fault,
    Format,
    Payment,
    Source,
)
from prepaid_pipeline.billing.providers.xml_stream import Fields, elements, forget, root_of
from prepaid_pipeline.importer.reports import quoted

_MESSAGE = re.compile(r"\{[^}]*:([a-z]{4}\.[0-9]{3})[0-9.]*\}")
# Status of an entry that is money coming in -> our status; INFO entries are not bookings.
CREDITS = {"BOOK": SUCCESS, "PDNG": PENDING}
_EXPECTED = "a statement, camt.053"


def read(source: Source) -> Iterator[Payment]:
    """The payment records of all statements of a file; faults go to ``source.problems``."""
    try:
        with source.path.open("rb") as stream:
            _require_statement(root_of(stream))
            yield from _Statements(source).read(
                elements(
                    stream, ("BkToCstmrStmt", "Stmt", "Acct", "TxDtls", "Ntry"), source.on_read
                )
            )
    except Fault as fault:
        source.problems.add(1, *fault.args)
    except etree.XMLSyntaxError as error:
        line = error.lineno or 1
        message = str(error.msg).partition(", line ")[0]
        source.problems.add(line, "-", f"broken XML ({message})", "a whole, well-formed file")


def _require_statement(tag: str) -> None:
    message = _MESSAGE.match(tag)
    if message and message[1].startswith("camt") and message[1] != "camt.053":
        raise Fault("-", f"a {message[1]} message", f"{_EXPECTED}: it has what was booked")


class _Statements:
    """Goes through a file; ``_account`` and ``_details`` are of the statement and entry at hand."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._account = ""
        self._details: list[Detail] = []
        self._fault: Fault | None = None
        self._prints = Counter[str]()
        self._statements = 0

    def read(self, events: Iterator[tuple[str, etree._Element]]) -> Iterator[Payment]:
        for event, element in events:
            name = _local(element)
            if event == "start":
                self._start(name, element)
            elif name == "Acct":
                self._read_account(element)
            elif name == "TxDtls":
                self._read_detail(element)
            elif name == "Ntry":
                yield from self._read_entry(element)
                forget(element)
            elif name == "Stmt":
                forget(element)
        if not self._statements and not self._source.problems:
            raise Fault("-", "no statement (BkToCstmrStmt/Stmt)", _EXPECTED)

    def _start(self, name: str, element: etree._Element) -> None:
        if name == "BkToCstmrStmt" and ":camt.053." not in (etree.QName(element).namespace or ""):
            namespace = quoted(etree.QName(element).namespace)
            raise Fault("-", f"the namespace {namespace}", f"{_EXPECTED}.001.02 or newer")
        parent = element.getparent()
        if name == "Stmt" and parent is not None and _local(parent) == "BkToCstmrStmt":
            self._account = ""
            self._prints.clear()
            self._statements += 1

    def _read_account(self, element: etree._Element) -> None:
        parent = element.getparent()
        if parent is not None and _local(parent) == "Stmt":
            self._account = Fields(element).text("Id/IBAN", "Id/Othr/Id")[:LONGEST]

    def _read_detail(self, element: etree._Element) -> None:
        try:
            self._details.append(camt_entry.detail(element))
        except Fault as fault:
            self._fault = self._fault or fault
        element.clear()

    def _read_entry(self, element: etree._Element) -> Iterator[Payment]:
        source = self._source
        if not self._statements:
            return
        source.rows += 1
        line = int(cast(Any, element.sourceline) or 1)
        details, self._details = self._details, []
        fault, self._fault = self._fault, None
        try:
            if fault is not None:
                raise fault
            if not (source.provider or self._account):
                raise Fault("Acct/Id", "nothing", "the account's IBAN, or --provider NAME")
            entry = camt_entry.entry(element, details, source.zone)
            yield from list(self._payments(line, entry))
        except Fault as fault:
            where, found, expected = fault.args
            source.problems.add(line, f"Ntry[{source.rows}]/{where}", found, expected)

    def _payments(self, line: int, entry: Entry) -> Iterator[Payment]:
        parts = _parts(entry)
        refs = self._references(entry, parts)
        for (detail, amount), ref in zip(parts, refs, strict=True):
            credit = entry.credit if detail.credit is None else detail.credit
            returned = entry.returned or detail.returned
            pays_back = (detail.invoice_number or "").startswith("CN-")
            status, kind = meaning(entry.status, credit, returned, pays_back)
            if kind:
                self._source.skipped[kind] += 1
                continue
            given = [ref, detail.bank_ref, detail.transaction_ref, *detail.other_refs]
            yield Payment(
                line=line,
                event_ref=ref,
                provider=self._source.provider or self._account,
                provider_ref=ref,
                invoice_number=detail.invoice_number,
                amount=amount,
                currency=entry.currency,
                status=status,
                occurred_at=entry.occurred_at,
                original_refs=[g for g in given if g] if status == CHARGEBACK else None,
                entry_digest=camt_entry.digest(entry, detail, amount),
                statement=self._statements,
            )

    def _references(self, entry: Entry, parts: list[tuple[Detail, Decimal]]) -> list[str]:
        """The bank's reference of each payment, the same in every delivery."""
        if len(parts) == 1:
            (detail, amount) = parts[0]
            named = entry.bank_ref or detail.bank_ref or detail.transaction_ref
            return [named or self._fingerprint(entry, detail, amount)]
        for refs in ([d.bank_ref for d, _ in parts], [d.transaction_ref for d, _ in parts]):
            if all(refs) and len(set(refs)) == len(refs):
                return refs
        if entry.bank_ref:
            return [f"{entry.bank_ref}/{place}" for place in range(1, len(parts) + 1)]
        return [self._fingerprint(entry, detail, amount) for detail, amount in parts]

    def _fingerprint(self, entry: Entry, detail: Detail, amount: Decimal) -> str:
        print_ = camt_entry.fingerprint(self._account, entry, detail, amount)
        self._prints[print_] += 1
        return f"{print_}-{self._prints[print_]}"


def _local(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _parts(entry: Entry) -> list[tuple[Detail, Decimal]]:
    """The payments of an entry with their amounts in its currency.

    One payment has the amount that was booked. Those of a batch have their own, if they add up to
    it; otherwise the entry is one payment, and which invoices it pays is not known.
    """
    if len(entry.details) == 1:
        return [(entry.details[0], entry.amount)]
    parts = [(d, d.amounts[entry.currency]) for d in entry.details if entry.currency in d.amounts]
    total = sum(-a if d.credit not in (None, entry.credit) else a for d, a in parts)
    if len(parts) == len(entry.details) and total == entry.amount:
        return parts
    whole = Detail(
        words="|".join(d.words for d in entry.details),
        returned=all(d.returned for d in entry.details),
    )
    return [(whole, entry.amount)]


def meaning(word: str, credit: bool, returned: bool, pays_back: bool) -> tuple[str, str]:
    """The status of an entry's payment, or, behind it, the kind that is not a customer's payment.

    ``word`` is the bank's status; ``returned``: it is a reversal or return; ``pays_back``: it names
    one of our credit notes.
    """
    if word == "INFO":
        return "", "information"
    if credit:
        return ("", "returned payment of ours") if returned else (CREDITS.get(word, word), "")
    if not (returned or pays_back):
        return "", "debit"
    if word != "BOOK":
        return "", "debit that is not booked"
    return (CHARGEBACK if returned else REFUNDED), ""


FORMAT = Format(
    "camt053", "camt.053 bank statements", lambda start: start.startswith(b"<"), read, True
)
