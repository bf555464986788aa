"""How a mail leaves: over SMTP, or as a file while no mail server is set."""

import os
import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from prepaid_pipeline.errors import MailNotSent, SettingError
from prepaid_pipeline.settings import Settings

# RFC 5321 section 4.5.3.2 allows minutes per command; a server that busy is asked again later.
TIMEOUT_SECONDS = 30

_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}
_SERVICE_CLOSING, _PERMANENT, _TOO_BIG = 421, 500, 552


class MailRefused(MailNotSent):
    """The server will never take this mail (RFC 5321: a reply of 5yz)."""


class MailDeferred(MailNotSent):
    """This mail could not be handed over now (a reply of 4yz, or the connection broke)."""


class MailServerUnreachable(MailNotSent):
    """No mail can be handed over at present: no connection, no login, or no such sender."""


class Transport(Protocol):
    """Hands over one mail at a time; raises one of the three errors above."""

    def send(self, message_id: str, recipient: str, content: bytes) -> None:
        """Hand over ``content`` (a complete message, RFC 5322) for one recipient."""


@dataclass(frozen=True)
class SmtpServer:
    """A mail server as PREPAID_SMTP_URL names it."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str

    @property
    def address(self) -> str:
        """host:port, without the password."""
        return f"{self.host}:{self.port}"


def parse_smtp_url(url: str) -> SmtpServer:
    """Read smtp://, smtps:// or smtp+starttls://[user:password@]host[:port].

    Raises SettingError; the message never repeats the URL, which may hold a password.
    """
    expected = SettingError(
        "PREPAID_SMTP_URL cannot be read: expected smtp://host:port, smtps://user:password@host"
        " or smtp+starttls://user:password@host"
    )
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise expected from None
    if not parts.hostname or parts.path not in ("", "/"):
        raise expected
    user = unquote(parts.username) if parts.username else None
    return SmtpServer(parts.scheme, parts.hostname, port, user, unquote(parts.password or ""))


def sender_address(settings: Settings) -> Address:
    """PREPAID_MAIL_FROM as name and address. Raises SettingError."""
    message = EmailMessage()
    try:
        message["From"] = settings.mail_from
        (address,) = message["From"].addresses
    except (ValueError, IndexError):
        address = Address()
    if not (address.username and address.domain and address.addr_spec.isascii()):
        raise SettingError(
            f"PREPAID_MAIL_FROM={settings.mail_from!r}: expected Name <name@example.com>"
        )
    assert isinstance(address, Address)
    return address


@contextmanager
def open_transport(settings: Settings) -> Iterator[Transport]:
    """The transport that the settings name; connects when the first mail is sent."""
    sender = sender_address(settings).addr_spec
    if settings.smtp_url is None:
        yield FileTransport(settings.mail_directory)
        return
    smtp = SmtpTransport(parse_smtp_url(settings.smtp_url), sender)
    try:
        yield smtp
    finally:
        smtp.close()


class FileTransport:
    """Writes each mail as <message id>.eml; a reader never sees half a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def send(self, message_id: str, recipient: str, content: bytes) -> None:  # noqa: ARG002
        """Write the file; the same mail again replaces it with the same bytes."""
        name = re.sub(r"[^\w.@-]", "_", message_id.strip("<>"), flags=re.ASCII)
        half = self._directory / f".{name}.{os.getpid()}.tmp"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            half.write_bytes(content)
            half.replace(self._directory / f"{name}.eml")
        except OSError as error:
            raise MailServerUnreachable(f"no mail can be written: {error}") from error


class SmtpTransport:
    """One connection for as many mails as the server takes over it."""

    def __init__(self, server: SmtpServer, sender: str) -> None:
        self._server = server
        self._sender = sender
        self._smtp: smtplib.SMTP | None = None

    def send(self, message_id: str, recipient: str, content: bytes) -> None:  # noqa: ARG002
        """Hand over one mail; a connection that the server closed in between is made anew."""
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
            try:
                self._smtp.quit()
            except (smtplib.SMTPException, OSError):
                self._smtp.close()
            self._smtp = None

    def _send(self, recipient: str, content: bytes) -> None:
        smtp = self._smtp or self._connect()
        try:
            smtp.sendmail(self._sender, [recipient], content)
        except smtplib.SMTPRecipientsRefused as error:
            raise self._answer(*next(iter(error.recipients.values()))) from error
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code >= _PERMANENT and error.smtp_code != _TOO_BIG:
                # It refuses us, not this mail: failing the whole outbox for it would be wrong.
                raise MailServerUnreachable(
                    f"{self._server.address} refuses the sender {self._sender}:"
                    f" {_said(error.smtp_code, error.smtp_error)}"
                ) from error
            raise self._answer(error.smtp_code, error.smtp_error) from error
        except smtplib.SMTPResponseException as error:
            raise self._answer(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            raise MailDeferred(f"{self._server.address}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        try:
            self._smtp = smtp = (
                smtplib.SMTP_SSL(
                    server.host,
                    server.port,
                    timeout=TIMEOUT_SECONDS,
                    context=ssl.create_default_context(),
                )
                if server.scheme == "smtps"
                else smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
            )
            if server.scheme == "smtp+starttls":
                smtp.starttls(context=ssl.create_default_context())
            if server.user is not None:
                smtp.login(server.user, server.password)
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            raise MailServerUnreachable(f"mail server {server.address}: {error}") from error
        return smtp

    def _answer(self, code: int, text: bytes | str) -> MailNotSent:
        if code == _SERVICE_CLOSING:
            self._drop()
        kind = MailRefused if code >= _PERMANENT else MailDeferred
        return kind(f"{self._server.address}: {_said(code, text)}")

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _said(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"
