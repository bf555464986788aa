"""A mail server that speaks SMTP over real sockets and misbehaves where it is told to."""

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

OK = {
    "greeting": b"220 here",
    "ehlo": b"250 here",
    "mail": b"250 ok",
    "rcpt": b"250 ok",
    "data": b"354 go ahead",
    "dot": b"250 taken",
}
_VERBS = {b"EHLO": "ehlo", b"HELO": "ehlo", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data"}


@dataclass(frozen=True)
class Fault:
    """A reply, or an end of the connection when there is none.

    ``delivered`` says whether the server keeps a mail that it has as a whole. ``seconds`` pass
    before the reply, ``then`` is done after it.
    """

    reply: bytes | None = None
    delivered: bool = False
    seconds: float = 0.0
    then: Callable[[], None] | None = None


@dataclass
class Server:
    """What it does wrong next (``faults``), whom it refuses always, and what it has delivered.

    Stages are those of OK, and ``content``: in the middle of the mail. At ``dot`` the server has
    all of it.
    """

    port: int = 0
    faults: dict[str, list[Fault | None]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, bytes] = field(default_factory=dict)
    delivered: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    connections: int = 0
    most_at_once: int = 0
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def will(self, stage: str, *faults: Fault | None) -> None:
        """Misbehave like this at the next times at a stage, in this order; None: behave."""
        with self._lock:
            self.faults[stage] += faults

    def behave(self) -> None:
        """No more faults."""
        with self._lock:
            self.faults.clear()

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                self.most_at_once = max(self.most_at_once, len(self._open))
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError, _Hangup), connection, connection.makefile("rb") as lines:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answer(connection, "greeting", None)
            recipient = ""
            while line := lines.readline():
                stage = _VERBS.get(line[:4].upper().strip(), "")
                if stage == "rcpt":
                    recipient = line.split(b"<")[1].split(b">")[0].decode()
                if line[:4].upper() == b"QUIT":
                    raise _Hangup
                if not stage:
                    connection.sendall(b"250 ok\r\n")
                elif self._answer(connection, stage, recipient) and stage == "data":
                    self._take(connection, lines, recipient)
        with self._lock:
            self._open.discard(connection)

    def _take(self, connection: socket.socket, lines: Iterator[bytes], recipient: str) -> None:
        content = b""
        for line in lines:
            if line == b".\r\n":
                self._answer(connection, "dot", recipient, content)
                return
            content += line.removeprefix(b".")
            if self._next("content"):
                raise _Hangup

    def _next(self, stage: str) -> Fault | None:
        with self._lock:
            waiting = self.faults.get(stage)
            return waiting.pop(0) if waiting else None

    def _answer(
        self, connection: socket.socket, stage: str, recipient: str | None, content: bytes = b""
    ) -> bool:
        """Answer a stage, well or badly; whether the dialogue goes on as it should."""
        fault = self._next(stage)
        if stage == "dot" and (fault is None or fault.delivered):
            with self._lock:
                self.delivered[recipient or ""].append(content)
        if fault is None:
            refusal = self.refused.get(recipient or "") if stage == "rcpt" else None
            connection.sendall((refusal or OK[stage]) + b"\r\n")
            return refusal is None
        time.sleep(fault.seconds)
        if fault.reply is not None:
            connection.sendall(fault.reply + b"\r\n")
        if fault.then is not None:
            fault.then()
        if fault.reply is None:
            raise _Hangup
        return fault.reply == OK[stage]


class _Hangup(Exception):  # noqa: N818
    """The connection ends here."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(port=listener.getsockname()[1])
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        server.close()
    thread.join()
