"""Mails to send, and a real mail server that takes, defers or refuses them."""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import Engine, text

from prepaid_pipeline.settings.load import Settings

_ONE_MAIL = text("""
WITH plan AS (
    INSERT INTO prepaid.plans (plan_code, name, term_months) VALUES ('P' || :n, :plan_name, 1)
    RETURNING plan_id
), customer AS (
    INSERT INTO prepaid.customers (customer_ref, name, email, country, currency)
    VALUES ('C' || :n, :name, :recipient, 'US', :currency) RETURNING customer_id
), subscription AS (
    INSERT INTO prepaid.subscriptions
        (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
    SELECT 'S' || :n, customer_id, plan_id, '2026-11-01', '2026-11-01', true FROM plan, customer
    RETURNING subscription_id, customer_id, plan_id
), service_plan AS (
    INSERT INTO prepaid.service_plans
        (subscription_id, customer_id, plan_id, origin, kind, status, start_date, end_date,
         planned_start, anchor_date, term_months, term_days, currency, price, addons,
         customer_name, plan_name, net_amount, recurring_amount, activated_on, quantity,
         discounts)
    SELECT subscription_id, customer_id, plan_id, 'imported', :kind, 'Active', '2026-11-01',
           '2026-12-01', '2026-11-01', '2026-11-01', 1, 0, :currency, 30,
           CAST(:addons AS jsonb), :name, :plan_name, 35, 30, '2026-11-01',
           :quantity, CAST(:discounts AS jsonb)
    FROM subscription RETURNING service_plan_id, customer_id
), invoice AS (
    INSERT INTO prepaid.invoices
        (invoice_number, service_plan_id, customer_id, currency, net, tax, total, status, tax_note,
         issued_on)
    SELECT 'INV-2026-' || lpad(:n, 6, '0'), service_plan_id, customer_id, :currency, :net, :tax,
           CAST(:net AS numeric) + CAST(:tax AS numeric), 'Open', :tax_note, '2026-10-25'
    FROM service_plan RETURNING invoice_id
), lines AS (
    INSERT INTO prepaid.invoice_lines
        (invoice_id, line_number, description, net, tax_class, tax_rate, tax,
         quantity, unit_price, list_amount, discount, includes_tax)
    SELECT invoice_id, 1, :plan_name, CAST(:net AS numeric), 'standard',
           CAST(:tax_rate AS numeric), CAST(:tax AS numeric), :quantity,
           list_amount / :quantity, list_amount, CAST(:discount AS numeric), :includes_tax
    FROM invoice CROSS JOIN LATERAL (
        SELECT CAST(:net AS numeric) + CAST(:discount AS numeric)
            + CASE WHEN :includes_tax THEN CAST(:tax AS numeric) ELSE 0 END AS list_amount) listed
)
INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient)
SELECT service_plan_id, :template, 'activation', :recipient FROM service_plan RETURNING email_id
""")

_DEFAULTS: Mapping[str, Any] = {
    "name": "Ada Buyer",
    "recipient": "ada@example.com",
    "plan_name": "Fiber 100",
    "kind": "renewal",
    "currency": "USD",
    "net": "1200.00",
    "tax": "87.00",
    "tax_rate": "0.0725",
    "tax_note": None,
    "addons": '[{"addon_code": "tv", "name": "TV box"}]',
    "template": "activation_confirmation",
    "quantity": 1,
    "discount": "0",
    "discounts": None,
    "includes_tax": False,
}


@pytest.fixture
def order(engine: Engine) -> Callable[..., int]:
    """Put a mail into the outbox, with a customer, plan and invoice of its own; its email_id."""
    numbers = iter(range(1, 10_000))

    def make(**changes: Any) -> int:
        with engine.begin() as connection:
            values = {**_DEFAULTS, **changes, "n": str(next(numbers))}
            email_id: int = connection.execute(_ONE_MAIL, values).scalar_one()
            return email_id

    return make


@pytest.fixture
def row(engine: Engine) -> Callable[[int], Mapping[str, Any]]:
    """The outbox's row, with how long it waits until the next attempt, in minutes."""
    query = text(
        "SELECT *, extract(epoch FROM next_attempt_at - clock_timestamp()) / 60 AS minutes"
        " FROM prepaid.emails WHERE email_id = :email_id"
    )

    def get(email_id: int) -> Mapping[str, Any]:
        with engine.connect() as connection:
            return connection.execute(query, {"email_id": email_id}).mappings().one()

    return get


@pytest.fixture
def due_again(engine: Engine) -> Callable[[], None]:
    """Let the waiting time and the leases of all mails run out."""
    change = text(
        "UPDATE prepaid.emails SET next_attempt_at = clock_timestamp() - interval '1 second',"
        " leased_until = clock_timestamp() - interval '1 second'"
        " WHERE status IN ('pending', 'sending')"
    )

    def pass_time() -> None:
        with engine.begin() as connection:
            connection.execute(change)

    return pass_time


@dataclass
class Mailbox:
    """What the mail server got; ``answers`` are its next replies, ``refused`` go by recipient."""

    contents: list[tuple[str, bytes]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    connections: int = 0

    async def handle_EHLO(  # noqa: N802
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        assert isinstance(envelope.content, bytes)
        self.contents.append((envelope.rcpt_tos[0], envelope.content))
        return answer

    def messages(self) -> list[EmailMessage]:
        """All that was received, parsed."""
        return [parse(content) for _, content in self.contents]


def parse(content: bytes) -> EmailMessage:
    """A message as a mail program sees it."""
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    """A mail server on a port of its own: what it got, and its URL."""
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, f"smtp://127.0.0.1:{port}"
    controller.stop()


@pytest.fixture
def over_smtp(settings: Settings, mailbox: tuple[Mailbox, str]) -> Settings:
    """The settings with that mail server."""
    return settings.model_copy(
        update={"smtp_url": mailbox[1], "mail_from": "Prepaid <billing@example.com>"}
    )
