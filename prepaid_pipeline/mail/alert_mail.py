"""A plain mail to whoever looks after the pipeline."""

from contextlib import closing
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

from prepaid_pipeline.addresses import recipient_address
from prepaid_pipeline.mail.transport import sender_address
from prepaid_pipeline.mail.transports import opener
from prepaid_pipeline.settings.load import Settings


def send_alert(settings: Settings, subject: str, body: str) -> bool:
    """Send ``body`` to each address of PREPAID_ALERT_TO (comma-separated) at once.

    False if none is set. Raises MailNotSent if it cannot be handed over.
    """
    recipients = [part for part in (settings.alert_to or "").split(",") if part.strip()]
    sender = sender_address(settings)
    with closing(opener(settings)()) as transport:
        for recipient in recipients:
            address = recipient_address(recipient, None)
            message = EmailMessage(policy=policy.SMTP)
            message["From"] = sender
            message["To"] = address
            message["Subject"] = " ".join(subject.split())
            message["Date"] = format_datetime(datetime.now(UTC))
            message["Message-ID"] = message_id = make_msgid(domain=sender.domain)
            message["Auto-Submitted"] = "auto-generated"
            message.set_content(body)
            transport.send(message_id, address.addr_spec, message.as_bytes())
    return bool(recipients)
