"""The email of a day's anchor: a copy of a seal where no database administrator can change it."""

from datetime import date

from prepaid_pipeline.audit import anchors
from prepaid_pipeline.audit.seals import Seal
from prepaid_pipeline.mail.alert_mail import send_alert
from prepaid_pipeline.settings.load import Settings


def send_anchor(settings: Settings, day: date, seal: Seal) -> bool:
    """Mail the anchor of ``seal`` to PREPAID_ANCHOR_TO; False if that is not set.

    Raises MailNotSent if it cannot be handed over.
    """
    subject = f"Audit log of {day.isoformat()}: seal {seal.seal_number}"
    told = settings.model_copy(update={"alert_to": settings.anchor_to})
    return send_alert(told, subject, anchors.text(seal))
