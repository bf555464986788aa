"""Sending what is in the outbox: at least once, the same bytes each time, several at a time.

A mail is claimed, written and stored before the first attempt, and marked before each attempt. If
the process dies between the sending and the note that it was sent, the mark is what the next sender
finds: the same bytes with the same Message-ID go out once more, and after a second such attempt a
person decides. So there is at most one extra copy, and no email is given up silently.
"""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine

from prepaid_pipeline.mail.outbox import Claim, Outbox
from prepaid_pipeline.mail.rendering_pool import Writers
from prepaid_pipeline.mail.smtp_connections import Couriers, Mail, Outcome
from prepaid_pipeline.mail.transports import opener
from prepaid_pipeline.settings.load import Settings

BATCH_SIZE = 100
# Batches in preparation at once: while one waits for the database the other one is written.
_AHEAD = 2
# How many attempts per connection are marked at once: a process that dies leaves as many mails of
# unknown outcome, and each mark is a commit.
_MARKED_PER_CONNECTION = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SendResult:
    """How many emails were sent, failed permanently, will be tried again, were dropped because what
    they say is not true any more, and are for a person to decide: nobody knows if they arrived.
    """

    sent: int = 0
    failed: int = 0
    retried: int = 0
    dropped: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class _Batch:
    """A claim with its mails written; ``outcomes`` are those that cannot be."""

    claim: Claim
    mails: Sequence[Mail]
    outcomes: Sequence[Outcome]


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
    outbox, counts = Outbox(engine, settings, as_of, run_id), Counter[str]()
    writers = Writers(settings)
    with _couriers(settings) as couriers, writers, ThreadPoolExecutor(_AHEAD, "mail-ahead") as pool:

        def prepare(size: int) -> Future[_Batch]:
            return pool.submit(_prepare, outbox, writers, size)

        for batch in _batches(prepare, limit, lambda: couriers.unreachable is not None):
            if couriers.unreachable is None:
                counts.update(_deliver(outbox, couriers, batch, settings))
            else:
                back = [Outcome(mail.email_id, "untried") for mail in batch.mails]
                outbox.step([*batch.outcomes, *back], [], batch.claim)
            counts.update(dropped=batch.claim.dropped, unknown=batch.claim.given_up)
        if couriers.unreachable is not None:
            _log.warning("%s; trying again later", couriers.unreachable)
    return SendResult(
        counts["sent"], counts["failed"], counts["pending"], counts["dropped"], counts["unknown"]
    )


def _batches(
    prepare: Callable[[int], Future[_Batch]], limit: int | None, enough: Callable[[], bool]
) -> Iterator[_Batch]:
    """All that is due, at most ``limit`` mails: while one batch is handed over the next ones are
    prepared. Nothing more is claimed once ``enough()``.
    """
    left = sys.maxsize if limit is None else limit
    ahead = deque[tuple[int, Future[_Batch]]]()

    def begin(most: int) -> None:
        nonlocal left
        while len(ahead) < most and left and not enough():
            size = min(left, BATCH_SIZE)
            left -= size
            ahead.append((size, prepare(size)))

    begin(1)
    while ahead:
        size, future = ahead.popleft()
        batch = future.result()
        found = batch.claim.found
        left += size - found
        if found == BATCH_SIZE:
            begin(_AHEAD)
        yield batch
        if found:
            begin(1)


@contextmanager
def _couriers(settings: Settings) -> Iterator[Couriers]:
    couriers = Couriers(opener(settings), settings.smtp_connections, settings.mail_rate)
    try:
        yield couriers
    finally:
        couriers.stop()


def _prepare(outbox: Outbox, writers: Writers, size: int) -> _Batch:
    """The next mails that are due, written and stored."""
    claim = outbox.claim(size)
    written, failed = writers.write(claim)
    new = [mail for mail in written if mail.email_id in claim.unwritten]
    lost = {mail.email_id for mail in new} - (outbox.store(new, claim) if new else set())
    return _Batch(claim, [mail for mail in written if mail.email_id not in lost], failed)


def _deliver(
    outbox: Outbox, couriers: Couriers, batch: _Batch, settings: Settings
) -> dict[str, int]:
    """Hand over a batch; how many mails are in which state now."""
    states, connections = Counter[str](), settings.smtp_connections
    window = connections * _MARKED_PER_CONNECTION
    if settings.mail_rate:
        window = max(1, min(window, settings.mail_rate))
    outcomes = list(batch.outcomes)
    # What may have arrived is marked as late as can be: a second unknown attempt is the last one.
    for waiting, marked in (
        (deque(mail for mail in batch.mails if mail.is_repeated), connections),
        (deque(mail for mail in batch.mails if not mail.is_repeated), window),
    ):
        flying = 0
        while flying or (waiting and _may_begin(couriers, batch.claim)):
            if waiting and 2 * flying <= marked and _may_begin(couriers, batch.claim):
                begin = [waiting.popleft() for _ in range(min(marked - flying, len(waiting)))]
                noted, started = outbox.step(outcomes, begin, batch.claim)
                states.update(noted)
                outcomes = []
                couriers.take([m for m in begin if m.email_id in started], batch.claim.stop_at)
                flying += len(started)
            if flying:
                outcomes.append(couriers.outcome())
                flying -= 1
        outcomes += [_not_begun(mail, couriers) for mail in waiting]
    noted, _ = outbox.step(outcomes, [], batch.claim)
    states.update(noted)
    return states


def _may_begin(couriers: Couriers, claim: Claim) -> bool:
    return couriers.unreachable is None and time.monotonic() < claim.stop_at


def _not_begun(mail: Mail, couriers: Couriers) -> Outcome:
    if couriers.unreachable is None:
        return Outcome(mail.email_id, "untried")
    return Outcome(mail.email_id, "unreachable", couriers.unreachable)
