"""How a mail leaves: over SMTP, or as a file while no mail server is set."""

import os
import re
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Protocol
from urllib.parse import unquote, urlsplit

from prepaid_pipeline import private
from prepaid_pipeline.errors import MailNotSent, SettingError
from prepaid_pipeline.settings.load import Settings

_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class MailRefused(MailNotSent):
    """The server will never take this mail (RFC 5321: a reply of 5yz)."""


class MailDeferred(MailNotSent):
    """This mail was not handed over: a reply of 4yz, or the connection broke before its end."""


class MailServerUnreachable(MailNotSent):
    """No mail can be handed over at present: no connection, no login, or no such sender."""


class MailOutcomeUnknown(MailNotSent):
    """The whole mail was handed over and no answer came that can be read: it may have arrived."""


class Transport(Protocol):
    """Hands over one mail at a time; raises one of the four errors above."""

    def send(self, message_id: str, recipient: str, content: bytes) -> None:
        """Hand over ``content`` (a complete message, RFC 5322) for one recipient."""

    def close(self) -> None:
        """Close the connections; no more emails will be handed over."""


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
        """``host:port``, without user and password."""
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
    return _sender(settings.mail_from)


@lru_cache(maxsize=4)
def _sender(text: str) -> Address:
    message = EmailMessage()
    try:
        message["From"] = text
        (address,) = message["From"].addresses
    except (ValueError, IndexError):
        address = Address()
    if not (address.username and address.domain and address.addr_spec.isascii()):
        raise SettingError(f"PREPAID_MAIL_FROM={text!r}: expected Name <name@example.com>")
    assert isinstance(address, Address)
    return address


def file_of(directory: Path, message_id: str) -> Path:
    """Where a mail is written while no SMTP server is set."""
    name = re.sub(r"[^\w.@-]", "_", message_id.strip("<>"), flags=re.ASCII)
    return directory / f"{name}.eml"


class FileTransport:
    """Writes each mail as <message id>.eml; a reader never sees half a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def send(self, message_id: str, recipient: str, content: bytes) -> None:  # noqa: ARG002
        """Write the file; the same mail again replaces it with the same bytes."""
        path = file_of(self._directory, message_id)
        half = path.with_name(f".{path.stem}.{os.getpid()}.{get_ident()}.tmp")
        try:
            private.make_directory(self._directory)
            private.write(half, content)
            half.replace(path)
        except OSError as error:
            raise MailServerUnreachable(f"no email can be written: {error}") from error

    def close(self) -> None:
        """Does nothing: each file is closed when it is written."""
