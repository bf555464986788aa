"""What stands in a confirmation, and that nothing else can get into it."""

from collections.abc import Callable
from datetime import date
from email.message import EmailMessage

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.settings.load import Settings
from tests.mail.conftest import parse

AS_OF = date(2026, 11, 1)


def _sent(engine: Engine, settings: Settings) -> list[EmailMessage]:
    send_emails(engine, settings, as_of=AS_OF)
    files = sorted(settings.mail_directory.glob("*.eml"), key=lambda f: int(f.name.split(".")[0]))
    assert [f.name for f in settings.mail_directory.iterdir() if f.suffix != ".eml"] == []
    return [parse(file.read_bytes()) for file in files]


def _bodies(message: EmailMessage) -> tuple[str, str]:
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    texts = (part.get_content().replace("\r\n", "\n") for part in (plain, html))
    return next(texts), next(texts)


def test_plan_details_and_receipt_lines(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order()
    (message,) = _sent(engine, settings)
    assert message["To"] == "Ada Buyer <ada@example.com>"
    assert message["Subject"] == "Your plan Fiber 100 is renewed"
    plain, html = _bodies(message)
    assert "TV box" in plain
    assert "From:      1 November 2026\nUntil:     30 November 2026\n" in plain
    assert "Receipt for invoice INV-2026-000001 of 25 October 2026\n" in plain
    assert plain.count("1,200.00") == 2
    assert "tax 7.25 %: 87.00" in plain
    assert "1,287.00" in plain
    assert '<th align="right">1,287.00 USD</th>' in html
    for part in ("Ada Buyer", "Fiber 100", "TV box", "30 November 2026", "INV-2026-000001"):
        assert part in html


def test_quantity_discount_and_tax_within_the_price(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order(
        quantity=3,
        net="27.00",
        tax="5.13",
        tax_rate="0.19",
        discount="3.57",
        includes_tax=True,
        discounts='[{"name": "Welcome & hello"}, {"name": "Loyal"}]',
        addons='[{"name": "TV box", "quantity": 2}, {"name": "Radio", "quantity": 1}]',
    )
    (message,) = _sent(engine, settings)
    plain, html = _bodies(message)
    assert "Plan:      3 × Fiber 100\nIncludes:  2 × TV box\n           Radio\n" in plain
    assert "    3 × 11.90 = 35.70 including tax, less 3.57\n    tax 19 %: 5.13\n" in plain
    assert "Your discounts: Welcome & hello, Loyal." in plain
    assert "<td>2 × TV box, Radio</td>" in html
    assert "<small>3 × 11.90 = 35.70 including tax, less 3.57</small>" in html
    assert "<p>Your discounts: Welcome &amp; hello, Loyal.</p>" in html


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, ""),
        ({"discount": "100"}, "1,300.00, less 100.00"),
        ({"quantity": 4}, "4 × 300.00 = 1,200.00"),
        ({"includes_tax": True}, "1,287.00 including tax"),
        ({"includes_tax": True, "tax": "0", "tax_rate": None}, ""),
    ],
)
def test_how_a_line_came_about_is_said_where_it_is_not_plain(
    engine: Engine,
    settings: Settings,
    order: Callable[..., int],
    changes: dict[str, object],
    shown: str,
) -> None:
    order(**changes)
    plain, _ = _bodies(_sent(engine, settings)[0])
    between = plain.split(" 1,200.00\n", 1)[1].split("    tax")[0]
    assert between.strip() == shown
    assert "discount" not in plain


@pytest.mark.parametrize(
    ("currency", "net", "tax", "shown"),
    [("JPY", "1200", "120", "1,320"), ("KWD", "12.500", "0.625", "13.125")],
)
def test_amounts_have_the_currency_s_decimals(
    engine: Engine,
    settings: Settings,
    order: Callable[..., int],
    currency: str,
    net: str,
    tax: str,
    shown: str,
) -> None:
    order(currency=currency, net=net, tax=tax, tax_rate="0.1")
    (message,) = _sent(engine, settings)
    assert f">{shown} {currency}<" in _bodies(message)[1]


def test_exempt_is_not_zero(engine: Engine, settings: Settings, order: Callable[..., int]) -> None:
    order(tax="0", tax_rate=None, tax_note="Exempt from tax.")
    order(tax="0", tax_rate="0")
    exempt, zero = (_bodies(message)[0] for message in _sent(engine, settings))
    assert "tax exempt\n" in exempt
    assert "Exempt from tax." in exempt
    assert "tax 0 %: 0.00" in zero
    assert "xempt" not in zero


def test_the_record_that_paid_it(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order()
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO prepaid.transactions (provider, provider_ref, amount, currency, status,"
            " outcome, invoice_id) SELECT 'cardpay', 'ch_77', total, currency, 'Success',"
            " 'matched', invoice_id FROM prepaid.invoices",
            "INSERT INTO prepaid.tasks (kind, invoice_id, assigned_role, opened_on, due_on, status,"
            " decision) SELECT 'payment_verification', invoice_id, 'finance', '2026-10-25',"
            " '2026-10-28', 'Done', 'approved' FROM prepaid.invoices",
            "UPDATE prepaid.invoices SET status = 'Paid', paid_on = '2026-10-28', transaction_id ="
            " (SELECT transaction_id FROM prepaid.transactions)",
        ):
            connection.execute(text(statement))
    plain, html = _bodies(_sent(engine, settings)[0])
    for body in (plain, html):
        assert "Paid on 28 October 2026 through cardpay, reference ch_77." in body


def test_a_full_discount(engine: Engine, settings: Settings, order: Callable[..., int]) -> None:
    order(net="0", tax="0")
    assert "There was nothing to pay." in _bodies(_sent(engine, settings)[0])[0]


def test_markup_in_a_name_stays_text(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order(name="<script>alert(1)</script>", plan_name="A & B")
    plain, html = _bodies(_sent(engine, settings)[0])
    assert "<script>" in plain
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "A &amp; B" in html


def test_names_in_any_script(engine: Engine, settings: Settings, order: Callable[..., int]) -> None:
    order(name="Zoë 山田 Łukasz", plan_name="Größe XL", recipient="zoe@bücher.example")
    (message,) = _sent(engine, settings)
    assert message["To"].addresses[0].display_name == "Zoë 山田 Łukasz"
    assert message["To"].addresses[0].addr_spec == "zoe@xn--bcher-kva.example"
    assert message["Subject"] == "Your plan Größe XL is renewed"
    assert "Hello Zoë 山田 Łukasz," in _bodies(message)[0]


def test_a_line_break_makes_no_header(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order(name="Ada\r\nBcc: spy@example.com", plan_name="Fiber\nX-Spam: yes")
    (message,) = _sent(engine, settings)
    assert message["Bcc"] is None
    assert message["X-Spam"] is None
    assert message["To"].addresses[0].display_name == "Ada Bcc: spy@example.com"


@pytest.mark.parametrize(
    "recipient",
    [
        "ada@example.com\r\nBcc: spy@example.com",
        "nobody",
        "a@b@",
        "@example.com",
        "zoë@example.com",
        "ada@example.com, spy@example.com",
    ],
)
def test_an_impossible_address_fails_that_mail_only(
    engine: Engine, settings: Settings, order: Callable[..., int], recipient: str
) -> None:
    order(recipient=recipient)
    good = order()
    assert send_emails(engine, settings, as_of=AS_OF) == SendResult(sent=1, failed=1)
    (file,) = settings.mail_directory.iterdir()
    assert file.name.startswith(f"{good}.")
    with engine.connect() as connection:
        (error,) = connection.execute(
            text("SELECT last_error FROM prepaid.emails WHERE status = 'failed'")
        ).scalars()
    assert "is not a valid email address" in error


def test_a_missing_template_fails_that_mail_only(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    order(template="no_such_template")
    order()
    assert send_emails(engine, settings, as_of=AS_OF) == SendResult(sent=1, failed=1)


def test_each_customer_gets_only_what_is_theirs(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    for n in range(120):
        order(name=f"Person{n:03}", recipient=f"p{n:03}@example.com", net=f"{1000 + n}", tax="0")
    messages = _sent(engine, settings)
    assert len(messages) == 120
    for n, message in enumerate(messages):
        source = "".join(_bodies(message)) + str(message["To"])
        for other in (n - 1, n + 1):
            assert f"Person{other:03}" not in source
            assert f"{1000 + other:,}.00" not in source
        assert f"Person{n:03} <p{n:03}@example.com>" in source
        assert f"{1000 + n:,}.00" in source


def test_a_mail_directory_that_cannot_be_written(
    engine: Engine, settings: Settings, order: Callable[..., int], tmp_path: object
) -> None:
    settings.home.parent.mkdir(exist_ok=True)
    settings.home.write_text("a file where the directory should be")
    order()
    assert send_emails(engine, settings, as_of=AS_OF) == SendResult(retried=1)
    settings.home.unlink()
    assert send_emails(engine, settings.model_copy(), as_of=AS_OF) == SendResult()
