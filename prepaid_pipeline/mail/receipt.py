"""The receipt that a confirmation carries: a paid invoice as PDF, set by Typst.

What stands in it is what EN 16931 asks of an invoice: number and day, seller, customer, lines with
quantity, net and tax rate, the tax per rate, the reason of an exemption, totals; and how it was
paid.
Names and texts reach Typst as data, never as source: markup in them is shown, not obeyed.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.mail.mime import Attachment
from prepaid_pipeline.mail.transport import sender_address
from prepaid_pipeline.settings.load import Settings

_TEMPLATE = Path(__file__).parent / "templates" / "receipt.typ"
# Readable by screen readers (ISO 14289-1). It refuses letters that no font here has.
_STANDARD = "ua-1"
_warm = threading.local()


def attachment(details: Mapping[str, Any], settings: Settings) -> Attachment | None:
    """The receipt for a row of the outbox; None where nothing is paid.

    ``details`` is a row of sql/mail/outbox.sql, part ``details``. The same row gives the same
    bytes.
    """
    if details["template"] != "activation_confirmation" or details["invoice_status"] != "Paid":
        return None
    name = f"receipt-{details['invoice_number']}.pdf"
    content = compiled(
        page(details, _seller(settings), catalogue.load(settings)), details["created_at"]
    )
    return Attachment(name, "application/pdf", content)


def page(details: Mapping[str, Any], seller: tuple[str, ...], say: Language) -> dict[str, Any]:
    """The receipt's texts, numbers and dates in the customer's language, for its template."""
    words = _Words(say, details["exponent"], details["currency"])
    country = details["country"]
    return {
        "lang": say.locale.language,
        "title": say("receipt.title", number=details["invoice_number"]),
        "heading": say("receipt.heading"),
        "state": say("receipt.state"),
        "seller": list(seller),
        "customer_label": say("receipt.customer_label"),
        "customer": [
            details["customer_name"],
            say("receipt.customer", ref=details["customer_ref"]),
            *([country] if country else []),
        ],
        "facts": _facts(details, say),
        "columns": [say(f"receipt.{key}") for key in ("item", "quantity", "net", "rate", "tax")],
        "lines": [
            {
                "cells": [
                    line["description"],
                    say.count(line["quantity"]),
                    words.amount(line["net"]),
                    words.rate(line["tax_rate"]),
                    words.amount(line["tax"]),
                ],
                "note": words.origin(line),
            }
            for line in details["lines"]
        ],
        "sums": _sums(details, say, words),
        "closing": _closing(details, say),
    }


def compiled(page: Mapping[str, Any], made_at: datetime) -> bytes:
    """The receipt as PDF; ``made_at`` is the date in the file."""
    import typst

    if not hasattr(_warm, "compiler"):
        _warm.compiler = typst.Compiler(str(_TEMPLATE), font_paths=_fonts())
    source, moment = _source(page), int(made_at.timestamp())
    try:
        written: bytes = _warm.compiler.compile(
            source, format="pdf", timestamp=moment, pdf_standards=[_STANDARD]
        )
    except typst.TypstError:
        # A name in a script that no font has: a receipt with gaps is better than no mail.
        written = _warm.compiler.compile(source, format="pdf", timestamp=moment)
    return written


def _source(page: Mapping[str, Any]) -> bytes:
    """Data as a string, in which Typst obeys backslashes alone. As an input (``sys_inputs``) it
    would take a fifth longer: with other inputs Typst forgets what it remembers of the template.
    """
    escaped = json.dumps(page).replace("\\", "\\\\").replace('"', '\\"')
    return f'#import "{_TEMPLATE.name}": paper\n#paper(json(bytes("{escaped}")))'.encode("ascii")


def _seller(settings: Settings) -> tuple[str, ...]:
    sender = sender_address(settings)
    return settings.seller or (sender.display_name or sender.addr_spec,)


@cache
def _fonts() -> Any:
    # Those that come with Typst, and the machine's for what they lack. Reading them costs as much
    # as ten receipts.
    import typst

    return typst.Fonts()


@dataclass(frozen=True)
class _Words:
    """Numbers as the language writes them, with the decimals of the currency (ISO 4217)."""

    say: Language
    exponent: int
    currency: str

    def amount(self, value: Decimal | str) -> str:
        return self.say.money(value, self.exponent)

    def total(self, value: Decimal) -> str:
        return f"{self.amount(value)} {self.currency}"

    def rate(self, rate: str | None) -> str:
        """None at all is exempt, which is not 0 %."""
        if rate is None:
            return self.say("receipt.exempt")
        digits = (Decimal(rate) * 100).normalize().as_tuple().exponent
        return self.say.rate(rate, max(0, -int(digits)))

    def origin(self, line: Mapping[str, Any]) -> str:
        """How a line's net came about, where that is not its price alone: 3 × 11.90 = 35.70."""
        discount = Decimal(line["discount"])
        taxed = line["includes_tax"] and Decimal(line["tax"]) > 0
        text = self.amount(line["list_amount"])
        if line["quantity"] != 1:
            many = f"{self.say.count(line['quantity'])} × {self.amount(line['unit_price'])}"
            text = f"{many} = {text}"
        elif not (discount or taxed):
            return ""
        if taxed:
            text = self.say("receipt.taxed_price", amount=text)
        if discount:
            less = self.amount(discount)
            text = self.say("receipt.discounted", amount=text, discount=less)
        return text


def _facts(details: Mapping[str, Any], say: Language) -> list[dict[str, str]]:
    last_day: date = details["end_date"] - timedelta(days=1)
    facts = {
        "invoice": details["invoice_number"],
        "issued": say.day(details["issued_on"]),
        "first_day": say.day(details["start_date"]),
        "last_day": say.day(last_day),
        "paid_on": say.day(details["paid_on"]),
        "provider": details["provider"] if details["provider_ref"] else None,
        "reference": details["provider_ref"],
    }
    return [{"label": say(f"receipt.{key}"), "text": text} for key, text in facts.items() if text]


def _taxes(details: Mapping[str, Any]) -> list[tuple[str | None, Decimal, Decimal]]:
    """Net and tax per rate; the exempt part (without a rate) last."""
    sums: dict[str | None, tuple[Decimal, Decimal]] = {}
    for line in details["lines"]:
        net, tax = sums.get(line["tax_rate"], (Decimal(0), Decimal(0)))
        sums[line["tax_rate"]] = net + Decimal(line["net"]), tax + Decimal(line["tax"])
    rates = sorted(sums, key=lambda rate: (rate is None, -Decimal(rate or 0)))
    return [(rate, *sums[rate]) for rate in rates]


def _sums(details: Mapping[str, Any], say: Language, words: _Words) -> list[dict[str, Any]]:
    """What stands under the lines: the tax per rate, the total, and what was paid."""

    def row(key: str, *, strong: bool = False, **values: str) -> dict[str, Any]:
        return {"text": say(f"receipt.{key}", **values), "strong": strong}

    rows = [
        row("sum_exempt", net=words.amount(net))
        if rate is None
        else row("sum_rate", rate=words.rate(rate), net=words.amount(net), tax=words.amount(tax))
        for rate, net, tax in _taxes(details)
    ]
    net, tax = words.amount(details["net"]), words.amount(details["tax"])
    rows.append(row("sum_net", net=net, tax=tax))
    rows.append(row("sum_total", total=words.total(details["total"]), strong=True))
    if details["credit"]:
        credit = words.total(details["credit"])
        rows.append(row("sum_credit", number=details["applied_note"], credit=credit))
        rows.append(row("sum_paid", paid=words.total(details["payable"]), strong=True))
    return rows


def _closing(details: Mapping[str, Any], say: Language) -> list[str]:
    sentences = [details["tax_note"]] if details["tax_note"] else []
    if details["discounts"]:
        sentences.append(say("receipt.discounts", names=", ".join(details["discounts"])))
    if details["payable"] == 0:
        sentences.append(say("receipt.nothing"))
    return sentences
