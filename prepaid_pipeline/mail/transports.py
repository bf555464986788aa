"""Which way mails leave, by the settings."""

from collections.abc import Callable

from prepaid_pipeline.mail.smtp import SmtpTransport
from prepaid_pipeline.mail.transport import FileTransport, Transport, parse_smtp_url, sender_address
from prepaid_pipeline.settings.load import Settings


def opener(settings: Settings) -> Callable[[], Transport]:
    """What makes a transport, which connects when its first mail is sent. Raises SettingError."""
    sender = sender_address(settings).addr_spec
    if settings.smtp_url is None:
        return lambda: FileTransport(settings.mail_directory)
    server = parse_smtp_url(settings.smtp_url)
    return lambda: SmtpTransport(server, sender, settings.smtp_timeout)
