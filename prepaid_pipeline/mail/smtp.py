"""Handing over a mail by SMTP (RFC 5321), and telling apart what did not arrive from what may have.

A mail is the server's once it has seen the line with the dot. Whatever goes wrong before that
has delivered nothing; what goes wrong between that and the server's answer may have.
"""

import smtplib
import socket
import ssl
from contextlib import suppress

from prepaid_pipeline.errors import MailNotSent
from prepaid_pipeline.mail import smtp_replies
from prepaid_pipeline.mail.transport import (
    MailDeferred,
    MailOutcomeUnknown,
    MailRefused,
    MailServerUnreachable,
    SmtpServer,
)
from prepaid_pipeline.settings.mail import ANSWER_SECONDS

# RFC 5321 section 4.5.3.2 allows minutes per command; a server that busy is asked again later.
TIMEOUT_SECONDS = 30.0

_SERVICE_CLOSING, _GO_AHEAD, _PERMANENT, _TOO_BIG = 421, 354, 500, 552
_BROKEN = (smtplib.SMTPException, OSError)


class SmtpTransport:
    """One connection for as many mails as the server takes over it."""

    def __init__(
        self, server: SmtpServer, sender: str, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._server = server
        self._sender = sender
        self._answer_seconds = answer_seconds
        self._timeout = min(TIMEOUT_SECONDS, answer_seconds)
        self._smtp: smtp_replies.Plain | None = None

    def send(self, message_id: str, recipient: str, content: bytes) -> None:  # noqa: ARG002
        """Hand over one email; a connection that the server closed in between is opened again."""
        reused = self._smtp is not None
        try:
            self._send(recipient, content)
        except MailDeferred:
            # Servers end idle and long-used connections; that says nothing about this mail.
            if not reused or self._smtp is not None:
                raise
            self._send(recipient, content)

    def check(self) -> None:
        """Connect and log in. Raises MailServerUnreachable."""
        self._connect()

    def close(self) -> None:
        """Say goodbye, if the server still listens."""
        if self._smtp is not None:
            with suppress(*_BROKEN):
                self._smtp.quit()
            self._drop()

    def _send(self, recipient: str, content: bytes) -> None:
        smtp = self._smtp or self._connect()
        try:
            self._envelope(smtp, recipient, len(content))
            smtp.send(_stuffed(content))
        except _BROKEN as error:
            raise self._broken(MailDeferred, error) from error
        try:
            smtp.timeout = self._answer_seconds
            smtp.send(b".\r\n")
            code, text = smtp.getreply()
        except _BROKEN as error:
            raise self._broken(MailOutcomeUnknown, error) from error
        finally:
            smtp.timeout = self._timeout
        if code // 100 == 2:
            return
        if code // 100 == 3:
            raise self._broken(MailOutcomeUnknown, _said(code, text))
        raise self._refusal(smtp, code, text)

    def _envelope(self, smtp: smtp_replies.Plain, recipient: str, size: int) -> None:
        """MAIL, RCPT and DATA, up to the server's word to go ahead."""
        options = [f"size={size}"] if smtp.has_extn("size") else []
        code, text = smtp.mail(self._sender, options)
        if code >= _PERMANENT and code != _TOO_BIG:
            # It refuses us, not this mail: failing the whole outbox for it would be wrong.
            self._reset(smtp)
            raise MailServerUnreachable(
                f"{self._server.address} refuses the sender {self._sender}: {_said(code, text)}"
            )
        if code // 100 == 2:
            code, text = smtp.rcpt(recipient)
            if code // 100 == 2:
                code, text = smtp.docmd("data")
                if code == _GO_AHEAD:
                    return
        raise self._refusal(smtp, code, text)

    def _connect(self) -> smtp_replies.Plain:
        server = self._server
        try:
            self._smtp = smtp = smtp_replies.connect(
                server.host, server.port, tls=server.scheme == "smtps", timeout=self._timeout
            )
            assert smtp.sock is not None
            # The line with the dot is not to wait for what came before it to be acknowledged.
            smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.scheme == "smtp+starttls":
                smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo_or_helo_if_needed()
            if server.user is not None:
                smtp.login(server.user, server.password)
        except _BROKEN as error:
            self._drop()
            raise MailServerUnreachable(f"mail server {server.address}: {error}") from error
        return smtp

    def _refusal(self, smtp: smtp_replies.Plain, code: int, text: bytes) -> MailNotSent:
        """What a negative reply means; the connection is ready for the next mail, or gone."""
        if code == _SERVICE_CLOSING or code // 100 not in (4, 5):
            self._drop()
        else:
            self._reset(smtp)
        kind = MailRefused if code >= _PERMANENT else MailDeferred
        return kind(f"{self._server.address}: {_said(code, text)}")

    def _reset(self, smtp: smtp_replies.Plain) -> None:
        try:
            code, _ = smtp.rset()
        except _BROKEN:
            code = _SERVICE_CLOSING
        if code // 100 != 2:
            self._drop()

    def _broken(self, kind: type[MailNotSent], error: object) -> MailNotSent:
        self._drop()
        return kind(f"{self._server.address}: {error}")

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _stuffed(content: bytes) -> bytes:
    """A message as it follows DATA, up to the dot: RFC 5321 section 4.5.2."""
    ended = content if content.endswith(b"\r\n") else content + b"\r\n"
    # A regular expression takes ten times as long.
    return (b"\n" + ended).replace(b"\n.", b"\n..")[1:]


def _said(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"
