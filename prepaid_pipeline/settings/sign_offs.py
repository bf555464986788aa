"""The settings of the sign-offs: who must approve twice, how long people have, who leads a team."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit

from prepaid_pipeline.errors import SettingError

LED_TEAMS = ("finance", "customer_success")
TASK_DAYS, ESCALATE_DAYS = 3, 7


@dataclass(frozen=True)
class SignOffSettings:
    """``second_approval_above``: currency (ISO 4217) -> amount above which two people approve.

    ``task_days`` are calendar days from a task's opening to its due date, ``escalate_days`` from
    there to the mail to the lead. ``leads``: team -> its lead's address. ``desk_url`` is what
    people type to get to the sign-off pages, without a slash at the end; None unless it was given.
    """

    second_approval_above: Mapping[str, Decimal]
    task_days: int
    escalate_days: int
    leads: Mapping[str, str]
    desk_url: str | None


def approval_limits(env: Mapping[str, str], name: str) -> dict[str, Decimal]:
    """Read amounts such as USD:1000;EUR:900. Raises SettingError, which names the setting."""
    limits: dict[str, Decimal] = {}
    for part in _parts(env.get(name)):
        currency, _, text = (piece.strip() for piece in part.partition(":"))
        try:
            amount = Decimal(text)
        except InvalidOperation:
            amount = Decimal("NaN")
        known = len(currency) == 3 and currency.isascii() and currency.isupper()
        if not known or currency in limits or not amount.is_finite() or amount < 0:
            raise SettingError(
                f"{name}: {part!r} cannot be read: expected each currency once with an amount of 0"
                " or more, such as USD:1000;EUR:900"
            )
        limits[currency] = amount
    return limits


def team_leads(env: Mapping[str, str], name: str) -> dict[str, str]:
    """Read addresses such as finance=lead@example.com. Raises SettingError, which names it."""
    leads: dict[str, str] = {}
    for part in _parts(env.get(name)):
        team, _, address = (piece.strip() for piece in part.partition("="))
        local, at, domain = address.rpartition("@")
        usable = at and local and domain and not any(c.isspace() for c in address)
        if team not in LED_TEAMS or team in leads or not usable:
            raise SettingError(
                f"{name}: {part!r} cannot be read: expected {' and '.join(LED_TEAMS)}, each at most"
                " once with an address, such as finance=lead@example.com;customer_success=…"
            )
        leads[team] = address
    return leads


def desk_url(env: Mapping[str, str], name: str) -> str | None:
    """Read an address such as https://desk.example.com. Raises SettingError, which names it."""
    if not (text := env.get(name)):
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise SettingError(
            f"{name}={text!r}: expected an address without a path, such as https://desk.example.com"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(";") if part.strip()]
