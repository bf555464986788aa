"""Sending what is in the outbox: at least once, the same bytes each time, several senders at once.

A mail is claimed, written and stored before the first attempt. If the process dies between the
sending and the note that it was sent, the lease runs out and the same bytes with the same
Message-ID go out again.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine

from prepaid_pipeline import database, queries
from prepaid_pipeline.email.render import Message, recipient_address, write
from prepaid_pipeline.email.transport import (
    MailDeferred,
    MailRefused,
    MailServerUnreachable,
    Transport,
    open_transport,
)
from prepaid_pipeline.settings import Settings

BATCH_SIZE = 50
# A batch stops sending at half of its lease: the rest of it is one attempt (transport timeouts) and
# the note of the outcome, so that nobody else can have claimed the mails by then.
LEASE_SECONDS = 600.0

_SQL = "jobs/send_emails"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SendResult:
    """How many mails were sent, failed for good, will be tried again, and were dropped because what
    they say is not true any more.
    """

    sent: int = 0
    failed: int = 0
    retried: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class _Mail:
    email_id: int
    recipient: str
    message: Message


@dataclass(frozen=True)
class _Outcome:
    email_id: int
    status: Literal["sent", "failed", "pending"]
    error: str | None = None


def send_emails(
    engine: Engine,
    settings: Settings,
    *,
    as_of: date,
    run_id: str | None = None,
    limit: int | None = None,
) -> SendResult:
    """Send all mails that are due, at most ``limit``; stops early when the server is unreachable.

    ``as_of`` and ``run_id`` are what the audit log notes. When a mail is tried again is real time,
    not business time. Raises SettingError for mail settings that cannot be used.
    """

    def transaction() -> Any:
        return database.transaction(engine, actor="send_emails", run_id=run_id, as_of=as_of)

    counts = {"sent": 0, "failed": 0, "pending": 0}
    dropped = 0
    left = limit
    with open_transport(settings) as transport:
        while left is None or left > 0:
            size = BATCH_SIZE if left is None else min(left, BATCH_SIZE)
            started = time.monotonic()
            with transaction() as connection:
                found = _claim(connection, size)
                outdated = _drop_outdated(connection, found)
                claimed = [row for row in found if row["email_id"] not in outdated]
                details = _details(connection, claimed, settings)
            if not found:
                break
            dropped += len(outdated)
            left = None if left is None else left - len(found)
            if not claimed:
                continue
            lease = claimed[0]["leased_until"]
            written, outcomes = _write(details, settings)
            with transaction() as connection:
                mine = _store(connection, written, lease)
            mails = [
                _mail(row, Message(row["message_id"], bytes(row["content"])))
                for row in claimed
                if row["content"] is not None
            ]
            mails += [mail for mail in written if mail.email_id in mine]
            tried, reachable = _send(transport, mails, started + LEASE_SECONDS / 2)
            outcomes += tried
            with transaction() as connection:
                _finish(connection, outcomes, lease)
                _give_back(connection, mails, outcomes, lease)
            for outcome in outcomes:
                counts[outcome.status] += 1
            if not reachable:
                break
    return SendResult(counts["sent"], counts["failed"], counts["pending"], dropped)


def _claim(connection: Connection, size: int) -> Sequence[Mapping[str, Any]]:
    rows = queries.statement(_SQL, "claim").execute(
        connection, {"batch_size": size, "lease_seconds": LEASE_SECONDS}
    )
    return sorted((dict(row) for row in rows.mappings()), key=lambda row: row["email_id"])


def _drop_outdated(connection: Connection, found: Sequence[Mapping[str, Any]]) -> set[int]:
    asked = {"email_ids": [row["email_id"] for row in found]}
    return {
        email_id
        for part in ("drop_outdated", "drop_decided")
        for email_id in queries.statement(_SQL, part).execute(connection, asked).scalars()
    }


def _details(
    connection: Connection, claimed: Sequence[Mapping[str, Any]], settings: Settings
) -> Sequence[Mapping[str, Any]]:
    unwritten = [row["email_id"] for row in claimed if row["content"] is None]
    asked = {"email_ids": unwritten, "payment_days": settings.payment_days}
    rows = queries.statement(_SQL, "details").execute(connection, asked)
    return [dict(row) for row in rows.mappings()]


def _write(
    details: Sequence[Mapping[str, Any]], settings: Settings
) -> tuple[list[_Mail], list[_Outcome]]:
    written, failed = list[_Mail](), list[_Outcome]()
    for row in details:
        try:
            message = write(row, settings)
        except Exception as error:
            # Whatever is wrong with one mail (its address, its template, its data) must not keep
            # the others in the outbox for ever.
            _log.warning("e-mail %s cannot be written: %s", row["email_id"], error)
            text = f"cannot be written: {type(error).__name__}: {error}"
            failed.append(_Outcome(row["email_id"], "failed", text))
        else:
            written.append(_mail(row, message))
    return written, failed


def _mail(row: Mapping[str, Any], message: Message) -> _Mail:
    return _Mail(row["email_id"], recipient_address(row["recipient"], None).addr_spec, message)


def _store(connection: Connection, written: Sequence[_Mail], lease: datetime) -> set[int]:
    rows = queries.statement(_SQL, "store").execute(
        connection,
        {
            "email_ids": [mail.email_id for mail in written],
            "message_ids": [mail.message.message_id for mail in written],
            "contents": [mail.message.content for mail in written],
            "lease": lease,
        },
    )
    return set(rows.scalars())


def _send(
    transport: Transport, mails: Sequence[_Mail], stop_at: float
) -> tuple[list[_Outcome], bool]:
    outcomes, unreachable = list[_Outcome](), ""
    for mail in mails:
        if unreachable:
            outcomes.append(_Outcome(mail.email_id, "pending", unreachable))
            continue
        if time.monotonic() > stop_at:
            break
        try:
            transport.send(mail.message.message_id, mail.recipient, mail.message.content)
            outcomes.append(_Outcome(mail.email_id, "sent"))
        except MailRefused as error:
            outcomes.append(_Outcome(mail.email_id, "failed", str(error)))
        except MailDeferred as error:
            outcomes.append(_Outcome(mail.email_id, "pending", str(error)))
        except MailServerUnreachable as error:
            _log.warning("%s; trying again later", error)
            unreachable = str(error)
            outcomes.append(_Outcome(mail.email_id, "pending", unreachable))
    return outcomes, not unreachable


def _finish(connection: Connection, outcomes: Sequence[_Outcome], lease: datetime) -> None:
    queries.statement(_SQL, "finish").execute(
        connection,
        {
            "email_ids": [outcome.email_id for outcome in outcomes],
            "statuses": [outcome.status for outcome in outcomes],
            "errors": [outcome.error for outcome in outcomes],
            "lease": lease,
        },
    )


def _give_back(
    connection: Connection, mails: Sequence[_Mail], outcomes: Sequence[_Outcome], lease: datetime
) -> None:
    done = {outcome.email_id for outcome in outcomes}
    untried = [mail.email_id for mail in mails if mail.email_id not in done]
    queries.statement(_SQL, "give_back").execute(connection, {"email_ids": untried, "lease": lease})
