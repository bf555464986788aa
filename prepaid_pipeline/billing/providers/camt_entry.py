"""One entry of a statement (Ntry) and the payments in it (TxDtls), as the bank wrote them.

Source: ISO 20022 Bank-to-Customer Cash Management, camt.053.001.02 to .13; the message definition
reports name the elements. What differs between the versions: Sts is a word or a Cd, a payment's
amount is Amt or AmtDtls/TxAmt/Amt.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from decimal import Decimal

from lxml import etree

from prepaid_pipeline.billing.providers import references
from prepaid_pipeline.billing.providers.records import LONGEST, Fault
from prepaid_pipeline.billing.providers.xml_stream import Fields
from prepaid_pipeline.importer import delivered
from prepaid_pipeline.importer.reports import quoted

# Any number of digits: what the column does not hold is kept as it was delivered.
_AMOUNT = re.compile(r"[0-9]{1,1000}(?:\.[0-9]{1,1000})?", re.ASCII)
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII)
# What banks write where there is no reference.
_NO_REFERENCE = frozenset({"NONREF", "NOTPROVIDED", "NOT PROVIDED", "NOREF"})
# Bank transaction codes (External Code Sets): reversals of direct debits and of credit transfers.
RETURNS = frozenset({"UPDD", "PRDD", "RCDD", "RRTN", "RPCR"})


@dataclass
class Detail:
    """One payment of an entry. ``amounts`` by currency; ``credit`` is None as the entry is."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    credit: bool | None = None
    bank_ref: str = ""
    transaction_ref: str = ""
    other_refs: list[str] = field(default_factory=list)
    invoice_number: str | None = None
    returned: bool = False
    words: str = ""


@dataclass
class Entry:
    """One line of the account. ``status`` is the bank's word, ``words`` all that tells it apart;
    ``written`` is the same without our reading of the dates.
    """

    amount: Decimal
    currency: str
    credit: bool
    returned: bool
    status: str
    occurred_at: datetime | str
    bank_ref: str
    details: list[Detail]
    words: str
    written: str


def detail(element: etree._Element) -> Detail:
    """Read a TxDtls. Raises Fault."""
    fields = Fields(element)
    structured = [
        *fields.texts("RmtInf/Strd/CdtrRefInf/Ref"),
        *fields.texts("RmtInf/Strd/RfrdDocInf/Nb"),
    ]
    free = [
        *fields.texts("RmtInf/Ustrd"),
        *fields.texts("RmtInf/Strd/AddtlRmtInf"),
    ]
    end_to_end = _reference(fields, "Refs/EndToEndId")
    refs = [end_to_end, _reference(fields, "Refs/InstrId"), _reference(fields, "Refs/Prtry/Ref")]
    parties = [
        fields.text(f"RltdPties/{party}/Nm", f"RltdPties/{party}/Pty/Nm")
        for party in ("Dbtr", "Cdtr")
    ]
    accounts = fields.texts("RltdPties/DbtrAcct/Id/IBAN")
    indicator = fields.text("CdtDbtInd")
    return Detail(
        amounts=_amounts(fields),
        credit=_credit(indicator) if indicator else None,
        bank_ref=_reference(fields, "Refs/AcctSvcrRef"),
        transaction_ref=_reference(fields, "Refs/TxId"),
        other_refs=[ref for ref in refs if ref],
        invoice_number=references.only_one(["\n".join(structured), "\n".join(free), end_to_end]),
        returned=_returned(fields),
        words="|".join([end_to_end, *structured, *free, *parties, *accounts]),
    )


def entry(element: etree._Element, details: list[Detail], zone: tzinfo) -> Entry:
    """Read an Ntry whose details were read before. Raises Fault."""
    fields = Fields(element)
    amount = fields.first("Amt")
    if amount is None:
        raise Fault("Amt", "nothing", "an amount")
    free = fields.text("AddtlNtryInf")
    if not details:
        details = [Detail(invoice_number=references.only_one([free]))]
    elif len(details) == 1 and details[0].invoice_number is None:
        details[0].invoice_number = references.only_one([free])
    booked, valued = _moment(fields, "BookgDt", zone), _moment(fields, "ValDt", zone)
    occurred_at = booked or valued
    if occurred_at is None:
        raise Fault("BookgDt", "nothing", "a booking date or a value date")
    status = fields.text("Sts/Cd", "Sts/Prtry", "Sts")
    if not 0 < len(status) <= LONGEST:
        raise Fault("Sts", quoted(status), "a status such as BOOK")
    return Entry(
        amount=_amount("Amt", amount),
        currency=_currency("Amt", amount),
        credit=_credit(fields.text("CdtDbtInd")),
        returned=fields.text("RvslInd") in ("true", "1") or _returned(fields),
        status=status,
        occurred_at=occurred_at,
        bank_ref=_reference(fields, "AcctSvcrRef"),
        details=details,
        words="|".join([str(booked), str(valued), free]),
        written="|".join([*_written(fields, "BookgDt"), *_written(fields, "ValDt"), free]),
    )


def fingerprint(account: str, entry: Entry, detail: Detail, amount: Decimal) -> str:
    """A reference for a payment that has none: the same in every delivery."""
    parts = (
        account,
        entry.words,
        f"{amount.normalize():f}",
        entry.currency,
        str(entry.credit),
        detail.words,
    )
    return "fp-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def digest(entry: Entry, detail: Detail, amount: Decimal) -> str:
    """A hash of all that the bank wrote about a payment. Records keep it, so that the next delivery
    is known: what it is made of never changes.
    """
    parts = (
        entry.written,
        *(entry.bank_ref, detail.bank_ref, detail.transaction_ref),
        f"{amount.normalize():f}",
        entry.currency,
        str(entry.credit),
        str(detail.credit),
        detail.words,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _amounts(fields: Fields) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for path in ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/InstdAmt/Amt"):
        amount = fields.first(path)
        if amount is not None:
            where = f"NtryDtls/TxDtls/{path}"
            found.setdefault(_currency(where, amount), _amount(where, amount))
    return found


def _amount(where: str, element: etree._Element) -> Decimal:
    written = (element.text or "").strip()
    if not _AMOUNT.fullmatch(written):
        expected = "a number of 0 or more with a decimal point; CdtDbtInd says the direction"
        raise Fault(where, quoted(written), expected)
    return Decimal(written)


def _currency(where: str, element: etree._Element) -> str:
    currency = element.get("Ccy", "").strip()
    if not currency:
        raise Fault(f"{where}/@Ccy", "nothing", "a currency")
    return currency


def _credit(indicator: str) -> bool:
    if indicator not in ("CRDT", "DBIT"):
        raise Fault("CdtDbtInd", quoted(indicator), "CRDT or DBIT")
    return indicator == "CRDT"


def _returned(fields: Fields) -> bool:
    return (
        fields.first("RtrInf") is not None or fields.text("BkTxCd/Domn/Fmly/SubFmlyCd") in RETURNS
    )


def _reference(fields: Fields, path: str) -> str:
    reference = fields.text(path)
    if len(reference) > LONGEST:
        raise Fault(path, f"{len(reference):,} characters", f"at most {LONGEST}")
    return "" if reference.upper() in _NO_REFERENCE else reference


def _written(fields: Fields, path: str) -> list[str]:
    return [fields.text(f"{path}/DtTm"), fields.text(f"{path}/Dt")]


def _moment(fields: Fields, path: str, zone: tzinfo) -> datetime | str | None:
    """The moment that the bank names, else the start of the day where the installation is; the
    bank's text if that is none that can be held.
    """
    timed, day_only = _written(fields, path)
    if delivered.is_beyond_times(timed or day_only):
        return timed or day_only
    if timed:
        try:
            moment = datetime.fromisoformat(timed)
        except ValueError:
            expected = "a date and time such as 2026-01-31T10:15:00+01:00"
            raise Fault(f"{path}/DtTm", quoted(timed), expected) from None
        return moment if moment.tzinfo else moment.replace(tzinfo=zone)
    if not day_only:
        return None
    match = _DAY.fullmatch(day_only)
    try:
        day = date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise Fault(f"{path}/Dt", quoted(day_only), "a date such as 2026-01-31") from None
    return datetime(day.year, day.month, day.day, tzinfo=zone)
