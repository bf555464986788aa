"""Alerts to whoever looks after the pipeline: by mail, and to a webhook as JSON."""

import json
import logging
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

from prepaid_pipeline import logs
from prepaid_pipeline.errors import MailNotSent, PrepaidError
from prepaid_pipeline.mail.alert_mail import send_alert
from prepaid_pipeline.settings.load import Settings

# A tick waits for it: 3 attempts of 5 s at most, 1 and 2 s apart.
_TIMEOUT_SECONDS = 5.0
_PAUSES = (1.0, 2.0, None)

log = logging.getLogger(__name__)


class AlertNotSent(PrepaidError):  # noqa: N818
    """An alert could not be sent to any of its recipients."""


def tell(settings: Settings, subject: str, body: str) -> int:
    """Tell PREPAID_ALERT_TO and PREPAID_ALERT_WEBHOOK; how many of the two were told.

    0 when neither is set. When one of them fails, that is logged and the other is enough. Raises
    AlertNotSent if nobody could be told, so that the caller tries again.
    """
    told, failed = 0, list[PrepaidError]()
    for way in (_by_mail, _by_webhook):
        try:
            told += way(settings, subject, body)
        except (AlertNotSent, MailNotSent) as error:
            logs.event(log, "alert not sent", logging.ERROR, error=type(error).__name__)
            failed.append(error)
    if failed and not told:
        raise AlertNotSent("; ".join(map(str, failed)))
    return told


def _by_mail(settings: Settings, subject: str, body: str) -> bool:
    return send_alert(settings, subject, body) if settings.alert_to else False


def _by_webhook(settings: Settings, subject: str, body: str) -> bool:
    """POST ``{"source", "at", "subject", "text"}``; chat services show ``text``."""
    url = settings.alert_webhook
    if url is None:
        return False
    alert = {
        "source": "prepaid",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "subject": subject,
        "text": f"{subject}\n\n{body}",
    }
    request = urllib.request.Request(
        url, json.dumps(alert).encode(), {"content-type": "application/json"}
    )
    said = ""
    for pause in _PAUSES:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            with error:
                said = f"answered {error.code}"
            if error.code < 500 and error.code != 429:
                break  # it will say the same again
        except (OSError, ValueError) as error:
            said = f"cannot be reached ({type(error).__name__})"
        if pause is not None:
            time.sleep(pause)
    # Without the URL: it often contains what lets one post there.
    raise AlertNotSent(f"The server of PREPAID_ALERT_WEBHOOK {said}.")
