"""The replies of a mail server (RFC 5321 section 4.2), read by somebody who does not trust it.

smtplib reads an endless reply without end, takes a line that is too long for a refusal, and gives a
reply that comes byte by byte all the time it wants.
"""

import re
import smtplib
import socket
import ssl
import time
from typing import Any

# RFC 5321 section 4.5.3.1.5 allows 512 octets a line; smtplib, and some servers, more.
_LONGEST_LINE, _MOST_LINES = 8192, 200
_WELCOME = 220
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class Garbage(smtplib.SMTPException):
    """What the server sent is not an SMTP reply."""


class Plain(smtplib.SMTP):
    """A connection whose every reply comes within ``timeout`` seconds and is well-formed, or raises
    TimeoutError, Garbage or SMTPServerDisconnected.
    """

    _rest = b""
    _of: socket.socket | None = None

    def send(self, s: Any) -> None:
        """Send, within ``timeout`` however long the last reply took."""
        if self.sock is not None:
            self.sock.settimeout(float(self.timeout))
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """Code and text of the next reply."""
        if self.sock is not self._of:
            # After STARTTLS nothing that came before it counts (RFC 3207 section 4.2).
            self._rest, self._of = b"", self.sock
        until, lines = time.monotonic() + float(self.timeout), list[bytes]()
        while len(lines) < _MOST_LINES:
            line = self._line(until)
            match = _REPLY.fullmatch(line)
            if match is None:
                raise Garbage(
                    f"its answer is not an SMTP reply: {line[:60].decode('ascii', 'replace')!r}"
                )
            lines.append((match[3] or b"").strip())
            if match[2] != b"-":
                return int(match[1]), b"\n".join(lines)
        raise Garbage(f"a reply of more than {_MOST_LINES} lines")

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._rest[:_LONGEST_LINE]:
            if len(self._rest) >= _LONGEST_LINE:
                raise Garbage("a reply without an end")
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError("it did not answer in time")
            assert self.sock is not None
            self.sock.settimeout(left)
            more = self.sock.recv(4096)
            if not more:
                raise smtplib.SMTPServerDisconnected("it closed the connection")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.removesuffix(b"\r")


class Encrypted(Plain, smtplib.SMTP_SSL):
    """A connection that is encrypted (TLS) from the start."""


def connect(host: str, port: int, *, tls: bool, timeout: float) -> Plain:
    """A connection that was greeted. Raises OSError and SMTPException."""
    made = (
        Encrypted(timeout=timeout, context=ssl.create_default_context())
        if tls
        else Plain(timeout=timeout)
    )
    # Not by naming the host above: smtplib then leaves the socket open when the greeting fails.
    made._host = host  # type: ignore[attr-defined]
    try:
        code, text = made.connect(host, port)
        if code != _WELCOME:
            raise smtplib.SMTPConnectError(code, text)
    except BaseException:
        made.close()
        raise
    return made
