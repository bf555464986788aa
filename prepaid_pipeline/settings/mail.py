"""The settings of sending: how many connections, how fast, how patient, and who is the seller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

CONNECTIONS, ANSWER_SECONDS, RETRY_HOURS = 4, 300, 96
_MOST_CONNECTIONS, _FASTEST, _LONGEST_ANSWER, _LONGEST_RETRY = 50, 10_000, 3600, 720

WholeNumber = Callable[[Mapping[str, str], str, int, int, int], int]


@dataclass(frozen=True)
class MailSettings:
    """``rate`` is mails per second of one sender, None: as fast as the server takes them.

    ``answer_seconds`` is how long the server may take to answer once it has a whole mail (RFC 5321
    section 4.5.3.2.6 asks for 10 minutes). ``retry_hours``: from the first time that it puts a
    mail off to the last attempt. ``seller`` are the lines that name the seller on receipts.
    """

    connections: int = CONNECTIONS
    rate: int | None = None
    answer_seconds: int = ANSWER_SECONDS
    retry_hours: int = RETRY_HOURS
    seller: tuple[str, ...] = ()


def mail_settings(env: Mapping[str, str], whole_number: WholeNumber) -> MailSettings:
    """Read them. Raises SettingError, which names the setting."""
    rate = "PREPAID_MAIL_RATE"
    return MailSettings(
        whole_number(env, "PREPAID_SMTP_CONNECTIONS", CONNECTIONS, 1, _MOST_CONNECTIONS),
        whole_number(env, rate, 0, 1, _FASTEST) if env.get(rate) else None,
        whole_number(env, "PREPAID_SMTP_TIMEOUT", ANSWER_SECONDS, 1, _LONGEST_ANSWER),
        whole_number(env, "PREPAID_MAIL_RETRY_HOURS", RETRY_HOURS, 1, _LONGEST_RETRY),
        tuple(
            line for part in (env.get("PREPAID_SELLER") or "").split(";") if (line := part.strip())
        ),
    )
