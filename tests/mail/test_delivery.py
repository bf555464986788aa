"""Sending: once each, later again when the server says so, never again when it says never."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.mail import outbox
from prepaid_pipeline.mail.alert_mail import send_alert
from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.mail.smtp import SmtpTransport
from prepaid_pipeline.mail.smtp_connections import Couriers
from prepaid_pipeline.mail.transport import parse_smtp_url
from prepaid_pipeline.settings.load import Settings
from tests.mail.conftest import Mailbox, free_port
from tests.mail.server import OK, Fault, Server, serving

AS_OF = date(2026, 11, 1)
Row = Callable[[int], Mapping[str, Any]]


def mailing(settings: Settings, server: Server, **changes: Any) -> Settings:
    """The settings with that server, and changed settings of the mails."""
    return settings.model_copy(update={"smtp_url": server.url, **changes})


@pytest.fixture
def box(mailbox: tuple[Mailbox, str]) -> Mailbox:
    return mailbox[0]


def test_sent_over_one_connection(
    engine: Engine, over_smtp: Settings, order: Callable[..., int], row: Row, box: Mailbox
) -> None:
    ids = [order(recipient=f"p{n}@example.com") for n in range(3)]
    assert send_emails(engine, over_smtp, as_of=AS_OF, run_id="run-1") == SendResult(sent=3)
    assert box.connections == 1
    assert [to for to, _ in box.contents] == [f"p{n}@example.com" for n in range(3)]
    assert box.messages()[0]["From"] == "Prepaid <billing@example.com>"
    for email_id, (_, content) in zip(ids, box.contents, strict=True):
        stored = row(email_id)
        assert stored["status"] == "sent"
        assert bytes(stored["content"]).rstrip() == content.rstrip()
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult()
    with engine.connect() as connection:
        entries = connection.execute(
            text("SELECT event, actor, run_id, as_of FROM prepaid.audit_log WHERE entity = 'email'")
        ).all()
    assert [tuple(e) for e in entries] == [("email_sent", "send_emails", "run-1", AS_OF)] * 3


def test_deferred_waits_longer_each_time_and_sends_the_same_bytes(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    box: Mailbox,
    due_again: Callable[[], None],
) -> None:
    email_id = order()
    box.answers = ["451 try again"] * 8
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(retried=1)
        waiting = row(email_id)
        assert waiting["status"] == "pending"
        assert "451 try again" in waiting["last_error"]
        assert float(waiting["minutes"]) == pytest.approx(minutes, abs=0.1)
        assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(), "not before its time"
        due_again()
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(sent=1)
    assert len(box.contents) == 9
    assert len({content for _, content in box.contents}) == 1
    assert row(email_id)["last_error"] is None


def test_refused_fails_for_good_and_the_rest_goes_out(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    box: Mailbox,
    due_again: Callable[[], None],
) -> None:
    bad = order(recipient="gone@example.com")
    order()
    box.refused["gone@example.com"] = "550 no such user"
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(sent=1, failed=1)
    assert "550 no such user" in row(bad)["last_error"]
    due_again()
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult()
    with engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM prepaid.holds")).scalar()
    assert count == 0


def test_a_server_that_ends_the_connection_in_between(
    engine: Engine, over_smtp: Settings, order: Callable[..., int], box: Mailbox
) -> None:
    for n in range(3):
        order(recipient=f"p{n}@example.com")
    box.answers = ["250 OK", "421 enough over this connection", "250 OK"]
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(sent=3)
    assert box.connections == 2


def test_no_server_there(
    engine: Engine, settings: Settings, order: Callable[..., int], row: Row
) -> None:
    first, second = order(), order()
    nobody = settings.model_copy(update={"smtp_url": f"smtp://127.0.0.1:{free_port()}"})
    assert send_emails(engine, nobody, as_of=AS_OF) == SendResult(retried=2)
    for email_id in (first, second):
        assert "refused" in row(email_id)["last_error"]
        assert row(email_id)["message_id"] is not None


def test_a_crash_after_sending_sends_the_same_mail_again(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    box: Mailbox,
    due_again: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    email_id = order()

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Couriers, "outcome", crash)
        with pytest.raises(KeyboardInterrupt):
            send_emails(engine, over_smtp, as_of=AS_OF)
    assert row(email_id)["status"] == "sending"
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(), "the lease still runs"
    due_again()
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(sent=1)
    assert row(email_id)["unknown_attempts"] == 1
    (first, second) = box.contents
    assert first == second
    assert row(email_id)["message_id"] == box.messages()[0]["Message-ID"]


def test_two_senders_at_once(
    engine: Engine, over_smtp: Settings, order: Callable[..., int], box: Mailbox
) -> None:
    for n in range(120):
        order(recipient=f"p{n}@example.com")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(send_emails, engine, over_smtp, as_of=AS_OF) for _ in range(2)]
        results = [run.result() for run in runs]
    assert sum(result.sent for result in results) == 120
    assert sorted(to for to, _ in box.contents) == sorted(f"p{n}@example.com" for n in range(120))


def test_a_lost_lease_changes_nothing(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    email_id = order()
    original = SmtpTransport.send

    def slow(self: SmtpTransport, message_id: str, recipient: str, content: bytes) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE prepaid.emails SET leased_until = now()"))
        original(self, message_id, recipient, content)

    monkeypatch.setattr(SmtpTransport, "send", slow)
    send_emails(engine, over_smtp, as_of=AS_OF, limit=1)
    assert row(email_id)["status"] == "sending", "whoever claims it next finishes it"


def test_several_connections_at_once(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    for n in range(60):
        order(recipient=f"p{n}@example.com")
    with serving() as server:
        server.will("dot", *[Fault(OK["dot"], delivered=True, seconds=0.02)] * 60)
        several = mailing(settings, server, smtp_connections=3)
        assert send_emails(engine, several, as_of=AS_OF) == SendResult(sent=60)
        assert server.most_at_once == server.connections == 3
        assert {len(copies) for copies in server.delivered.values()} == {1}


def test_a_server_that_allows_one_connection(
    engine: Engine, settings: Settings, order: Callable[..., int]
) -> None:
    for n in range(40):
        order(recipient=f"p{n}@example.com")
    with serving() as server:
        server.will("greeting", None, *[Fault(b"421 too many of you")] * 3)
        server.will("dot", *[Fault(OK["dot"], delivered=True, seconds=0.01)] * 10)
        assert send_emails(engine, mailing(settings, server), as_of=AS_OF) == SendResult(sent=40)
        assert server.connections == 4


def test_pacing(engine: Engine, settings: Settings, order: Callable[..., int]) -> None:
    for n in range(9):
        order(recipient=f"p{n}@example.com")
    with serving() as server:
        started = time.monotonic()
        paced = mailing(settings, server, mail_rate=20)
        assert send_emails(engine, paced, as_of=AS_OF) == SendResult(sent=9)
        assert time.monotonic() - started >= 8 / 20


def test_given_up_after_a_last_attempt(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    box: Mailbox,
    due_again: Callable[[], None],
) -> None:
    email_id = order()
    patient = over_smtp.model_copy(update={"mail_retry_hours": 2})
    box.answers = ["451 later"] * 3

    def wait(hours: float) -> None:
        change = "UPDATE prepaid.emails SET deferred_since = clock_timestamp() - :h * interval '1h'"
        with engine.begin() as connection:
            connection.execute(text(change), {"h": hours})
        due_again()

    assert send_emails(engine, patient, as_of=AS_OF) == SendResult(retried=1)
    wait(1.999)
    assert send_emails(engine, patient, as_of=AS_OF) == SendResult(retried=1)
    assert float(row(email_id)["minutes"]) == pytest.approx(0.06, abs=0.05), "then, not later"
    wait(2)
    assert send_emails(engine, patient, as_of=AS_OF) == SendResult(failed=1)
    assert row(email_id)["last_error"].startswith("given up after 2 hours: 127.0.0.1")


def test_a_database_that_restarts_loses_no_outcome(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    box: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in range(3):
        order(recipient=f"p{n}@example.com")
    original, lost = Couriers.outcome, iter([True, False, False])

    def outcome(self: Couriers) -> object:
        if next(lost):
            engine.dispose()
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
                connection.execute(text("LOCK prepaid.emails"))
                unlocked.append(engine)
        return original(self)

    unlocked: list[Engine] = []
    monkeypatch.setattr(Couriers, "outcome", outcome)
    assert send_emails(engine, over_smtp, as_of=AS_OF) == SendResult(sent=3)
    assert unlocked
    assert len(box.contents) == 3


def test_no_time_left_gives_the_mail_back(
    engine: Engine,
    over_smtp: Settings,
    order: Callable[..., int],
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    email_id = order()
    monkeypatch.setattr(outbox, "WORK_SECONDS", -1.0)
    assert send_emails(engine, over_smtp, as_of=AS_OF, limit=1) == SendResult()
    given_back = row(email_id)
    assert (given_back["status"], given_back["attempts"]) == ("pending", 0)


def test_at_most_limit(engine: Engine, settings: Settings, order: Callable[..., int]) -> None:
    for _ in range(5):
        order()
    assert send_emails(engine, settings, as_of=AS_OF, limit=2) == SendResult(sent=2)


def test_alerts(over_smtp: Settings, box: Mailbox) -> None:
    assert send_alert(over_smtp, "ignored", "nobody to tell") is False
    assert box.contents == []
    settings = over_smtp.model_copy(update={"alert_to": "a@example.com, b@example.com"})
    assert send_alert(settings, "run failed\nBcc: spy@example.com", "Look at the run.") is True
    assert [to for to, _ in box.contents] == ["a@example.com", "b@example.com"]
    message = box.messages()[0]
    assert message["Subject"] == "run failed Bcc: spy@example.com"
    assert message["Bcc"] is None
    assert message.get_content().strip() == "Look at the run."


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", ("smtp", "mail.example.com", 25, None, "")),
        ("smtps://u%40x:p%3Aw@mail.example.com", ("smtps", "mail.example.com", 465, "u@x", "p:w")),
        ("smtp+starttls://u:p@mail:2525", ("smtp+starttls", "mail", 2525, "u", "p")),
    ],
)
def test_smtp_urls(url: str, expected: tuple[object, ...]) -> None:
    server = parse_smtp_url(url)
    assert (server.scheme, server.host, server.port, server.user, server.password) == expected


@pytest.mark.parametrize(
    "url", ["mail.example.com", "http://mail", "smtp://", "smtp://mail:port", "smtp://u:secret@/x"]
)
def test_smtp_urls_that_cannot_be_read(url: str) -> None:
    with pytest.raises(SettingError, match="PREPAID_SMTP_URL cannot be read") as caught:
        parse_smtp_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["Prepaid", "", "a@b, c@d", "Prepaid <@>"])
def test_a_sender_that_is_no_address(engine: Engine, settings: Settings, value: str) -> None:
    with pytest.raises(SettingError, match="PREPAID_MAIL_FROM"):
        send_emails(engine, settings.model_copy(update={"mail_from": value}), as_of=AS_OF)
