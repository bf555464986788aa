"""The outbox's statements (sql/mail/outbox.sql), each group of them in one transaction."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.mail import report
from prepaid_pipeline.mail.smtp_connections import Mail, Outcome
from prepaid_pipeline.settings.load import Settings

# A batch begins no mail after this long; the rest of its lease is the last attempts (their
# timeouts) and the note of their outcomes: nobody else can have claimed the mails by then.
WORK_SECONDS, LAST_ATTEMPT_SECONDS = 120.0, 300.0

_SQL = "mail/outbox"

# The states that noted mails are in now, and the ids of those whose attempt may begin.
Noted = tuple[list[str], set[int]]


@dataclass(frozen=True)
class Claim:
    """Mails under one lease. ``unwritten`` are the details of those that have no content yet, by
    email_id. ``found`` counts the dropped ones too; ``given_up`` those whose outcome stays unknown.
    """

    mails: Sequence[Mapping[str, Any]]
    unwritten: Mapping[int, Mapping[str, Any]]
    lease: datetime | None
    found: int
    dropped: int
    given_up: int
    stop_at: float
    until: float


class Outbox:
    """The outbox of a database, for one sender. ``as_of`` and ``run_id`` are for the audit log."""

    def __init__(
        self, engine: Engine, settings: Settings, as_of: date, run_id: str | None = None
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._about = {"actor": "send_emails", "run_id": run_id, "as_of": as_of}

    def claim(self, size: int) -> Claim:
        """Take up to ``size`` mails that are due, without those that are no longer true."""
        started = time.monotonic()
        lease_seconds = WORK_SECONDS + LAST_ATTEMPT_SECONDS + self._settings.smtp_timeout
        with self._transaction() as connection:
            params = {"batch_size": size, "lease_seconds": lease_seconds}
            lost = _run(connection, "recover", params)
            found = _run(connection, "claim", params)
            outdated = self._drop_outdated(connection, [row["email_id"] for row in found])
            mails = [row for row in found if row["email_id"] not in outdated]
            unwritten = [row["email_id"] for row in mails if row["content"] is None]
            asked = {"email_ids": unwritten, "payment_days": self._settings.payment_days}
            details = _run(connection, "details", asked) if unwritten else []
            details = [self._with_report(connection, row) for row in details]
        return Claim(
            mails=sorted(mails, key=lambda row: row["email_id"]),
            unwritten={row["email_id"]: row for row in details},
            lease=found[0]["leased_until"] if found else None,
            found=len(found),
            dropped=len(outdated),
            given_up=sum(row["status"] == "unknown" for row in lost),
            stop_at=started + WORK_SECONDS,
            until=started + lease_seconds,
        )

    def store(self, written: Sequence[Mail], claim: Claim) -> set[int]:
        """Keep what was written, before the first attempt; the ids of those still ours."""
        lengths = [len(mail.content) for mail in written]
        params = {
            "email_ids": [mail.email_id for mail in written],
            "message_ids": [mail.message_id for mail in written],
            # Not an array: each of its bytes would pass through Python twice, as text.
            "contents": b"".join(mail.content for mail in written),
            "starts": [
                end - length for end, length in zip(accumulate(lengths), lengths, strict=True)
            ],
            "lengths": lengths,
            "lease": claim.lease,
        }
        with self._transaction() as connection:
            return {row["email_id"] for row in _run(connection, "store", params)}

    def step(self, outcomes: Sequence[Outcome], begin: Sequence[Mail], claim: Claim) -> Noted:
        """Note outcomes and mark the attempts that begin next, in one transaction.

        The outcomes are known here and nowhere else: this waits for a database that restarts.
        """
        if not (outcomes or begin):
            return [], set()
        tried = [outcome for outcome in outcomes if outcome.kind != "untried"]
        note = {
            "email_ids": [outcome.email_id for outcome in tried],
            "outcomes": [outcome.kind for outcome in tried],
            "errors": [outcome.error for outcome in tried],
            "retry_hours": self._settings.mail_retry_hours,
            "lease": claim.lease,
        }
        untried = [outcome.email_id for outcome in outcomes if outcome.kind == "untried"]
        back = {"email_ids": untried, "lease": claim.lease}
        start = {"email_ids": [mail.email_id for mail in begin], "lease": claim.lease}

        def work() -> Noted:
            with self._transaction() as connection:
                noted = _run(connection, "note", note) if tried else []
                if untried:
                    _run(connection, "give_back", back)
                started = _run(connection, "start", start) if begin else []
            return [row["status"] for row in noted], {row["email_id"] for row in started}

        return _through_restarts(work, claim.until)

    def _transaction(self) -> Any:
        return connections.transaction(self._engine, **self._about)  # type: ignore[arg-type]

    def _with_report(self, connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
        if row["template"] != report.TEMPLATE:
            return row
        return {**row, **report.details(connection, row["occasion"], self._settings)}

    def _drop_outdated(self, connection: Connection, email_ids: list[int]) -> set[int]:
        asked = {"email_ids": email_ids}
        parts = ("drop_outdated", "drop_decided") if email_ids else ()
        return {row["email_id"] for part in parts for row in _run(connection, part, asked)}


def _run(connection: Connection, part: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = queries.statement(_SQL, part).execute(connection, params)
    return [dict(row) for row in found.mappings()] if found.returns_rows else []


def _through_restarts(work: Callable[[], Noted], until: float) -> Noted:
    pause = 0.1
    while True:
        try:
            return work()
        except DBAPIError as error:
            lost = error.connection_invalidated or isinstance(error, OperationalError)
            if not lost or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
