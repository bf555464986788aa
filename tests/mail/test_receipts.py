"""The receipt: what stands in it can be read and copied, and nothing in it is obeyed."""

import io
from collections.abc import Callable
from datetime import date
from email.message import EmailMessage
from typing import Any

import pytest
from pypdf import PdfReader
from sqlalchemy import Engine, text

from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.settings.load import Settings, load
from tests.mail.conftest import parse
from tests.mail.test_leaving_mails import DAY, active, change, settle
from tests.people.conftest import person
from tests.world import World, context

__all__ = ["person"]
AS_OF = date(2026, 11, 1)
Order = Callable[..., int]
SELLER = ("Example Ltd", "1 High Street", "VAT GB 123")


@pytest.fixture
def mailed(engine: Engine, settings: Settings) -> Callable[..., list[EmailMessage]]:
    """Pays all invoices and sends all mails; the mails."""

    def mailed(*, paid: bool = True) -> list[EmailMessage]:
        with engine.begin() as connection:
            for statement in _PAID if paid else ():
                connection.execute(text(statement))
        from_seller = settings.model_copy(update={"seller": SELLER})
        send_emails(engine, from_seller, as_of=AS_OF)
        files = sorted(settings.mail_directory.iterdir(), key=lambda f: int(f.name.split(".")[0]))
        return [parse(file.read_bytes()) for file in files]

    return mailed


_PAID = (
    "INSERT INTO prepaid.transactions (provider, provider_ref, amount, currency, status, outcome,"
    " invoice_id) SELECT 'cardpay', 'ch_' || invoice_id, total, currency, 'Success', 'matched',"
    " invoice_id FROM prepaid.invoices",
    "INSERT INTO prepaid.tasks (kind, invoice_id, assigned_role, opened_on, due_on, status,"
    " decision) SELECT 'payment_verification', invoice_id, 'finance', '2026-10-25', '2026-10-28',"
    " 'Done', 'approved' FROM prepaid.invoices",
    "UPDATE prepaid.invoices i SET status = 'Paid', paid_on = '2026-10-28', transaction_id ="
    " t.transaction_id FROM prepaid.transactions t WHERE t.invoice_id = i.invoice_id",
)


def pdf(message: EmailMessage) -> PdfReader:
    (attached,) = message.iter_attachments()
    assert attached.get_content_type() == "application/pdf"
    return PdfReader(io.BytesIO(attached.get_content()))


def words(message: EmailMessage) -> str:
    """All of the text, as it is copied out of it."""
    return " ".join(" ".join(page.extract_text() for page in pdf(message).pages).split())


def test_what_stands_in_it(order: Order, mailed: Callable[..., list[EmailMessage]]) -> None:
    order(quantity=3, discount="100")
    (message,) = mailed()
    (attached,) = message.iter_attachments()
    assert attached.get_filename() == "receipt-INV-2026-000001.pdf"
    said = words(message)
    for part in (
        "Receipt Paid Example Ltd 1 High Street VAT GB 123",
        "For Ada Buyer Customer C1",
        "Invoice INV-2026-000001 Issued on 25 October 2026 Service from 1 November 2026"
        " until 30 November 2026 Paid on 28 October 2026 Paid through cardpay Reference ch_",
        "Item Quantity Net Tax rate Tax Fiber 100",
        "3 × 433.33 = 1,300.00, less 100.00",
        "3 1,200.00 7.25% 87.00",
        "7.25% tax on 1,200.00: 87.00",
        "Net 1,200.00, tax 87.00",
        "Total 1,287.00 USD",
    ):
        assert part in said, (part, said)


def test_it_is_an_accessible_a4_page(
    order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    order()
    document = pdf(mailed()[0])
    assert document.metadata is not None
    assert document.metadata.title == "Receipt for invoice INV-2026-000001"
    assert [round(float(side)) for side in document.pages[0].mediabox[2:]] == [595, 842]
    root = document.trailer["/Root"]
    assert root["/Lang"] == "en"
    assert root["/MarkInfo"]["/Marked"]
    assert b"pdfuaid" in root["/Metadata"].get_data()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"currency": "JPY", "net": "1200", "tax": "120", "tax_rate": "0.1"}, "Total 1,320 JPY"),
        (
            {"currency": "KWD", "net": "12.5", "tax": "0.625", "tax_rate": "0.05"},
            "Total 13.125 KWD",
        ),
        (
            {"tax": "0", "tax_rate": None, "tax_note": "Exempt: article 132."},
            "Exempt from tax: 1,200.00 Net 1,200.00, tax 0.00 Total 1,200.00 USD Exempt: article",
        ),
        ({"tax": "0", "tax_rate": "0"}, "0% tax on 1,200.00: 0.00"),
        ({"discounts": '[{"name": "Loyal"}]'}, "Discounts: Loyal."),
        ({"net": "0", "tax": "0"}, "There was nothing to pay."),
    ],
)
def test_amounts_rates_and_reasons(
    order: Order, mailed: Callable[..., list[EmailMessage]], changes: dict[str, Any], expected: str
) -> None:
    order(**changes)
    assert expected in words(mailed()[0])


HOSTILE = (
    '#eval("1+1")',
    "$ sum x^2 $",
    "#set page(width: 1pt)",
    '#read("/etc/passwd")',
    "*bold* _it_",
    "= Heading",
    "@ref <label>",
    "\\ backslash `raw`",
    '"quote" \\u{41} // comment /* x */',
    "#{",
    '#import "@preview/x:0.1.0"',
)


def test_markup_in_names_is_shown_and_not_obeyed(
    order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    for hostile in HOSTILE:
        order(name=f"N {hostile} N", plan_name=f"P {hostile} P")
    for hostile, message in zip(HOSTILE, mailed(), strict=True):
        said = words(message)
        shown = " ".join(hostile.split())
        assert f"N {shown} N" in said
        assert f"P {shown} P" in said


def test_names_that_no_font_can_show_stop_no_mail(
    order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    order(name="山田太郎 \U0001f600 \u202eabc", plan_name="Größe Łódź Ελλάδα Россия")
    (message,) = mailed()
    assert "Größe Łódź Ελλάδα Россия" in words(message)


def test_a_long_invoice_goes_on_the_next_page(
    engine: Engine, order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    order()
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.invoice_lines (invoice_id, line_number, description, net,"
                " tax_class, tax_rate, tax, quantity, unit_price, list_amount, discount, includes_tax)"
                " SELECT i.invoice_id, n, 'Extra ' || n, 0, 'standard', 0.0725, 0, 1, 0, 0, 0, false"
                " FROM prepaid.invoices i, generate_series(2, 80) n"
            )
        )
    document = pdf(mailed()[0])
    assert len(document.pages) > 1
    assert "Extra 80" in document.pages[-1].extract_text()
    assert "Item Quantity Net" in " ".join(document.pages[1].extract_text().split())


def test_the_same_bytes_each_time(
    engine: Engine, order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    order()
    first = mailed()[0].as_bytes()
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE prepaid.emails SET status = 'pending', content = NULL, message_id = NULL,"
                " sent_at = NULL, next_attempt_at = clock_timestamp()"
            )
        )
    assert mailed(paid=False)[0].as_bytes() == first


def test_no_receipt_for_what_is_not_paid(
    order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    order()
    assert list(mailed(paid=False)[0].iter_attachments()) == []


def test_the_credit_of_a_change(
    world: World, settings: Settings, person: Callable[[World, str], str]
) -> None:
    world.tax_rate("0.0725")
    subscription, _ = active(world, "30.00")
    changed = change(world, person(world, "finance"), subscription, world.plan("60.00"))
    assert changed is not None
    world.open(context(DAY))
    settle(world, changed.service_plan_id)
    assert send_emails(world.engine, settings, as_of=DAY).sent == 2
    newest = max(settings.mail_directory.iterdir(), key=lambda f: int(f.name.split(".")[0]))
    said = words(parse(newest.read_bytes()))
    assert "Total 64.35 USD" in said
    assert "Less unused days, credit note CN-2026-000001: 21.45 USD Paid 42.90 USD" in said
    assert "Prepaid plans" in said, "without PREPAID_SELLER the sender's name"


def test_many_are_written_on_several_threads(
    engine: Engine, settings: Settings, order: Order, mailed: Callable[..., list[EmailMessage]]
) -> None:
    for n in range(30):
        order(name=f"Customer number {n}")
    for n, message in enumerate(mailed()):
        assert f"Customer number {n} Customer C{n + 1}" in words(message)
    assert send_emails(engine, settings, as_of=AS_OF) == SendResult()


def test_in_the_language_of_the_installation(
    engine: Engine, settings: Settings, order: Order
) -> None:
    order(quantity=3, discount="100")
    with engine.begin() as connection:
        for statement in _PAID:
            connection.execute(text(statement))
    send_emails(engine, settings.model_copy(update={"locale": "de_DE"}), as_of=AS_OF)
    (file,) = settings.mail_directory.iterdir()
    said = words(parse(file.read_bytes()))
    for part in (
        "Quittung Bezahlt",
        "25. Oktober 2026",
        "Summe 1.287,00 USD",
        "3 × 433,33 = 1.300,00, abzüglich 100,00",
        "7,25 % Steuer auf 1.200,00: 87,00",
    ):
        assert part in said.replace("\xa0", " "), (part, said)


def test_the_seller_s_lines() -> None:
    assert load({"PREPAID_SELLER": " A Ltd ; ;VAT 1"}).seller == ("A Ltd", "VAT 1")
