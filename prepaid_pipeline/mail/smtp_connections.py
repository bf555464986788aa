"""Several connections at once: threads that each hand over one mail after the other."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from prepaid_pipeline.mail.transport import (
    MailDeferred,
    MailOutcomeUnknown,
    MailRefused,
    MailServerUnreachable,
    Transport,
)

# Fewer mails than this are not worth another connection.
_WORTH_ANOTHER = 10
# A thread that waits for the server is left behind at the end: its mail's outcome is unknown.
_GOODBYE_SECONDS = 2.0

Kind = Literal["sent", "failed", "deferred", "unreachable", "unknown", "untried"]
_KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    (MailRefused, "failed"),
    (MailDeferred, "deferred"),
    (MailServerUnreachable, "unreachable"),
    (MailOutcomeUnknown, "unknown"),
)


@dataclass(frozen=True)
class Mail:
    """A written mail; ``content`` are the bytes that every attempt sends.

    ``is_repeated``: an earlier attempt may have delivered it.
    """

    email_id: int
    recipient: str
    message_id: str
    content: bytes
    is_repeated: bool = False


@dataclass(frozen=True)
class Outcome:
    """How the attempt for one mail went (sql/mail/outbox.sql, part ``note``, says what each
    means); untried: not begun before time was over.
    """

    email_id: int
    kind: Kind
    error: str | None = None


class Couriers:
    """Threads with a connection each, made when there is work for them.

    A connection that cannot be made ends its thread while another one works: a server may allow
    fewer at a time. When the last one fails nothing more is tried, and all is 'unreachable'.
    """

    def __init__(self, opener: Callable[[], Transport], most: int, rate: int | None) -> None:
        self._opener = opener
        self._most = most
        self._pace = _Pace(rate)
        self._work = SimpleQueue[tuple[Mail, float] | None]()
        self._done = SimpleQueue[Outcome | Exception]()
        self._lock = threading.Lock()
        self._threads = list[threading.Thread]()
        self._alive = 0
        self._waiting = 0
        self._fewer = False
        self._stopped = threading.Event()
        self._unreachable: str | None = None

    @property
    def unreachable(self) -> str | None:
        return self._unreachable

    def take(self, mails: Sequence[Mail], stop_at: float) -> None:
        """Hand over these; none is begun after ``stop_at`` (time.monotonic())."""
        with self._lock:
            self._waiting += len(mails)
            wanted = min(self._most, -(-self._waiting // _WORTH_ANOTHER))
            more = 0 if self._fewer and self._alive else max(0, wanted - self._alive)
            self._alive += more
        for mail in mails:
            self._work.put((mail, stop_at))
        for _ in range(more):
            thread = threading.Thread(target=self._run, name="mail", daemon=True)
            self._threads.append(thread)
            thread.start()

    def outcome(self) -> Outcome:
        """The next outcome, in the order in which attempts end; waits for it."""
        outcome = self._done.get()
        if isinstance(outcome, Exception):
            raise outcome
        with self._lock:
            self._waiting -= 1
        return outcome

    def stop(self) -> None:
        """End the threads; what they had not begun stays as it is."""
        self._stopped.set()
        for _ in self._threads:
            self._work.put(None)
        until = time.monotonic() + _GOODBYE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        transport = self._opener()
        try:
            while (next_mail := self._work.get()) is not None and not self._stopped.is_set():
                mail, stop_at = next_mail
                outcome = self._try(transport, mail, stop_at)
                if outcome.kind == "unreachable" and self._leave(mail, stop_at, outcome):
                    return
                self._done.put(outcome)
        except Exception as error:
            # The sender raises it; without this it would wait indefinitely.
            self._done.put(error)
        finally:
            transport.close()

    def _try(self, transport: Transport, mail: Mail, stop_at: float) -> Outcome:
        if self._unreachable is not None:
            return Outcome(mail.email_id, "unreachable", self._unreachable)
        if not self._pace.wait(stop_at, self._stopped):
            return Outcome(mail.email_id, "untried")
        try:
            transport.send(mail.message_id, mail.recipient, mail.content)
        except tuple(kind for kind, _ in _KINDS) as error:
            kind = next(kind for caught, kind in _KINDS if isinstance(error, caught))
            return Outcome(mail.email_id, kind, str(error))
        return Outcome(mail.email_id, "sent")

    def _leave(self, mail: Mail, stop_at: float, outcome: Outcome) -> bool:
        """Leave the mail to the other threads, if there are any; else nothing goes out."""
        with self._lock:
            if self._unreachable is not None:
                return False
            if self._alive == 1:
                self._unreachable = outcome.error
                return False
            self._alive -= 1
            self._fewer = True
        self._work.put((mail, stop_at))
        return True


class _Pace:
    """At most ``rate`` begins a second, over all threads."""

    def __init__(self, rate: int | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop_at: float, stopped: threading.Event) -> bool:
        """Wait for a turn; False: there is none before ``stop_at``, or the sender stops."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            if turn > stop_at:
                return False
            self._next = turn + self._gap
        return not stopped.wait(max(0.0, turn - time.monotonic()))
