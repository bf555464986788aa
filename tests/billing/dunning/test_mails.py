"""What stands in the mails, and that a reminder that is not true any more does not go out."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from sqlalchemy import text

from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings
from tests.billing.dunning.conftest import day, dun, mails, unpaid
from tests.mail.conftest import free_port
from tests.world import World


def send(world: World, settings: Settings) -> SendResult:
    return send_emails(world.engine, settings, as_of=day(14).as_of)


def sent(settings: Settings) -> list[EmailMessage]:
    files = sorted(settings.mail_directory.glob("*.eml"), key=lambda f: int(f.name.split(".")[0]))
    return [message_from_bytes(f.read_bytes(), policy=policy.default) for f in files]  # type: ignore[misc]


def bodies(message: EmailMessage) -> list[str]:
    """Text and HTML, each with single blanks."""
    parts = (message.get_body((kind,)) for kind in ("plain", "html"))
    return [" ".join(part.get_content().split()) for part in parts if part is not None]


def test_what_a_reminder_says(taxed: World, settings: Settings) -> None:
    addon = taxed.addon("2.00")
    subscription = taxed.subscription(taxed.customer(), taxed.plan(), addons=(addon,))
    taxed.open()
    assert subscription
    dun(taxed, 7)
    assert send(taxed, settings) == SendResult(sent=1)
    (mail,) = sent(settings)
    number = taxed.sql("SELECT invoice_number FROM prepaid.invoices")
    plan_name, customer = taxed.rows("SELECT plan_name, customer_name FROM prepaid.service_plans")[
        0
    ]
    assert mail["Subject"] == f"Reminder: invoice {number} for {plan_name} is not paid yet"
    assert mail["To"] == f"{customer} <someone@example.com>"
    for body in bodies(mail):
        for part in (
            f"Hello {customer},",
            f"your payment for invoice {number}. It was due on 2 November 2026.",
            "12.87 USD",
            plan_name,
            "Add-on",
            "2 November 2026 to 1 December 2026",
            f"quote the invoice number {number}",
            "If nothing has arrived by 2 December 2026, we will cancel this order.",
            "your plan will not begin",
            "please ignore this email",
        ):
            assert part in body


def test_what_is_owed_is_the_total_without_the_credit(taxed: World, settings: Settings) -> None:
    unpaid(taxed)
    taxed.sql("ALTER TABLE prepaid.invoices DISABLE TRIGGER refuse_invoice_edit")
    taxed.sql("UPDATE prepaid.invoices SET credit = 4.10")
    dun(taxed, 3)
    assert send(taxed, settings) == SendResult(sent=1)
    for body in bodies(sent(settings)[0]):
        assert "6.63 USD" in body
        assert "10.73" not in body


def test_without_a_last_day_none_is_named(taxed: World, settings: Settings) -> None:
    unpaid(taxed)
    dun(taxed, 3, payment_days=None)
    assert send(taxed, settings.model_copy(update={"payment_days": None})) == SendResult(sent=1)
    for body in bodies(sent(settings)[0]):
        assert "will be renewed once your payment has arrived" in body
        assert "ancel" not in body
        assert "ay by" not in body


def test_names_cannot_write_html(taxed: World, settings: Settings) -> None:
    unpaid(taxed)
    taxed.sql("UPDATE prepaid.service_plans SET customer_name = '<script>alert(1)</script>'")
    dun(taxed, 3)
    dun(taxed, 31)
    # The reminder is dropped; what is left says the same of the customer.
    assert send(taxed, settings) == SendResult(sent=1, dropped=1)
    assert "<script>" not in bodies(sent(settings)[0])[1]
    assert "&lt;script&gt;" in bodies(sent(settings)[0])[1]


def test_what_the_cancellation_says(taxed: World, settings: Settings) -> None:
    (plan,) = unpaid(taxed)
    number = taxed.invoice(plan)
    dun(taxed, 31)
    assert send(taxed, settings) == SendResult(sent=1)
    (mail,) = sent(settings)
    name = taxed.sql(
        "SELECT plan_name FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
    )
    assert mail["Subject"] == f"Your order for {name} is cancelled"
    for body in bodies(mail):
        for part in (
            f"{number} of 2 November 2026, 10.73 USD",
            "The invoice is void: you no longer need to pay it",
        ):
            assert part in body


def paid(world: World, plan: int) -> None:
    world.pay_and_approve(plan)
    world.settle()


def announced(world: World, plan: int) -> None:
    world.record(world.invoice(plan), status="Pending")


def held(world: World, plan: int) -> None:
    world.approve(plan, word="reject", note="a question to the customer")


def cancelled(world: World, plan: int) -> None:
    world.cancel(plan)


BEFORE_SENDING = {
    paid: "paid",
    cancelled: "void",
    announced: "open, and its payment is being looked into",
    held: "open, and its payment is being looked into",
}


@pytest.mark.parametrize("what", BEFORE_SENDING)
def test_a_reminder_that_is_not_true_any_more_is_dropped(
    taxed: World, settings: Settings, what: object
) -> None:
    plan, other = unpaid(taxed, 2)
    number = taxed.invoice(plan)
    dun(taxed, 14)
    what(taxed, plan)  # type: ignore[operator]
    confirmations = 1 if what is paid else 0
    assert send(taxed, settings) == SendResult(sent=1 + confirmations, dropped=1)
    assert mails(taxed, plan) == [f"{number} day 14 dropped"]
    assert mails(taxed, other) == [f"{taxed.invoice(other)} day 14 sent"]
    assert taxed.rows(
        "SELECT last_error, content, sent_at FROM prepaid.emails WHERE status = 'dropped'"
    ) == [(f"not sent: invoice {number} is {BEFORE_SENDING[what]}", None, None)]  # type: ignore[index]
    assert taxed.rows(
        "SELECT before, after, actor FROM prepaid.audit_log WHERE event = 'email_dropped'"
    ) == [("pending", "dropped", "send_emails")]
    assert send(taxed, settings) == SendResult()


def test_also_one_that_was_written_and_waits_for_its_next_attempt(
    taxed: World, settings: Settings
) -> None:
    (plan,) = unpaid(taxed)
    dun(taxed, 7)
    nobody = settings.model_copy(update={"smtp_url": f"smtp://127.0.0.1:{free_port()}"})
    assert send(taxed, nobody) == SendResult(retried=1)
    assert taxed.sql("SELECT content IS NOT NULL FROM prepaid.emails")
    taxed.record(taxed.invoice(plan))
    taxed.match()
    taxed.sql("UPDATE prepaid.emails SET next_attempt_at = clock_timestamp()")
    assert send(taxed, settings) == SendResult(dropped=1)
    assert sent(settings) == []


def test_a_failed_reminder_that_is_sent_again_is_looked_at_too(
    taxed: World, settings: Settings
) -> None:
    (plan,) = unpaid(taxed)
    dun(taxed, 7)
    taxed.sql("UPDATE prepaid.emails SET status = 'failed'")
    care = taxed.officer("test_care", "customer_success")
    mail = taxed.sql("SELECT email_id FROM prepaid.emails")
    assert decisions.resend(taxed.engine, care, [mail]) == 1
    taxed.record(taxed.invoice(plan))
    assert send(taxed, settings) == SendResult(dropped=1)


def test_many_outdated_ones_do_not_end_the_sending(
    taxed: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prepaid_pipeline.mail.sender.BATCH_SIZE", 2)
    plans = unpaid(taxed, 5)
    dun(taxed, 7)
    for plan in plans[:3]:
        announced(taxed, plan)
    assert send(taxed, settings) == SendResult(sent=2, dropped=3)


def test_the_renewal_mails_know_their_plan(taxed: World, settings: Settings) -> None:
    """A confirmation still shows the live invoice, after one that was voided."""
    (plan,) = unpaid(taxed)
    dun(taxed, 3)
    send(taxed, settings)
    paid(taxed, plan)
    assert send(taxed, settings) == SendResult(sent=1)
    assert "Receipt for invoice" in bodies(sent(settings)[1])[0]
    with taxed.engine.connect() as connection:
        about = connection.execute(text("SELECT template, invoice_id IS NULL FROM prepaid.emails"))
        assert dict(map(tuple, about)) == {  # type: ignore[arg-type]
            "payment_reminder": False,
            "activation_confirmation": True,
        }
