"""Settings: what the environment says, read when it is asked for and never at import."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.mail import MailSettings, mail_settings
from prepaid_pipeline.settings.operations import (
    FREE_MB,
    KEEP_RUNS_DAYS,
    UNSENT_HOURS,
    OperationsSettings,
    log_format,
    webhook,
)
from prepaid_pipeline.settings.sign_offs import (
    ESCALATE_DAYS,
    TASK_DAYS,
    SignOffSettings,
    approval_limits,
    desk_url,
    team_leads,
)

REMINDER_DAYS = (3, 7, 14)
PAYMENT_DAYS = 30
_LONGEST = 366


@dataclass(frozen=True)
class Settings:
    """One installation's settings; ``docs/settings.md`` describes each.

    ``database_url`` is None for the embedded PostgreSQL in ``home``. ``reports`` is a path or URL.
    ``grace_days`` and ``lead_days`` are calendar days in ``timezone``. ``first_month`` is the first
    day of the first month that can be reported. ``reminder_days`` rise; they and ``payment_days``
    count from the day on which an invoice is due; None: it may be paid for ever.
    ``reporting_currency`` (ISO 4217) is what reports are converted into; None: they are not.
    """

    home: Path
    database_url: str | None
    reports: str
    timezone: ZoneInfo
    grace_days: int
    lead_days: int
    first_month: date
    smtp_url: str | None
    mail_from: str
    alert_to: str | None
    anchor_to: str | None
    port: int
    reminder_days: tuple[int, ...]
    payment_days: int | None
    sign_offs: SignOffSettings
    reporting_currency: str | None
    operations: OperationsSettings
    mails: MailSettings
    # How reports speak, as CLDR names it, and whom a closed month is mailed to.
    locale: str = "en_GB"
    report_recipients: tuple[str, ...] = ()

    @property
    def mail_directory(self) -> Path:
        """Where mails go as .eml files while no SMTP server is set."""
        return self.home / "mail"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance directory."""
        return self.home / "dagster"

    def today(self) -> date:
        """The business date: today in the installation's time zone."""
        return datetime.now(self.timezone).date()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read all settings from ``environ`` (default: the process's own).

    Raises SettingError naming the variable, its value and what is expected.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("PREPAID_HOME") or ".prepaid").expanduser().resolve()
    reminder_days, payment_days = _chasing(env)
    return Settings(
        home=home,
        database_url=env.get("PREPAID_DATABASE_URL") or None,
        reports=env.get("PREPAID_REPORTS") or str(home / "reports"),
        timezone=_timezone(env),
        grace_days=_whole_number(env, "PREPAID_GRACE_DAYS", 7, 0, 366),
        lead_days=_whole_number(env, "PREPAID_LEAD_DAYS", 7, 0, 366),
        first_month=_month(env, "PREPAID_FIRST_MONTH", "2015-01"),
        smtp_url=env.get("PREPAID_SMTP_URL") or None,
        mail_from=env.get("PREPAID_MAIL_FROM") or "Prepaid plans <billing@localhost>",
        alert_to=env.get("PREPAID_ALERT_TO") or None,
        anchor_to=env.get("PREPAID_ANCHOR_TO") or env.get("PREPAID_ALERT_TO") or None,
        port=_whole_number(env, "PREPAID_PORT", 3000, 1, 65535),
        reminder_days=reminder_days,
        payment_days=payment_days,
        sign_offs=SignOffSettings(
            second_approval_above=approval_limits(env, "PREPAID_SECOND_APPROVAL_ABOVE"),
            task_days=_whole_number(env, "PREPAID_TASK_DAYS", TASK_DAYS, 0, _LONGEST),
            escalate_days=_whole_number(env, "PREPAID_ESCALATE_DAYS", ESCALATE_DAYS, 1, _LONGEST),
            leads=team_leads(env, "PREPAID_TEAM_LEADS"),
            desk_url=desk_url(env, "PREPAID_DESK_URL"),
        ),
        reporting_currency=_currency(env, "PREPAID_REPORTING_CURRENCY"),
        operations=OperationsSettings(
            read_only_port=_port(env, "PREPAID_READ_ONLY_PORT"),
            metrics_port=_port(env, "PREPAID_METRICS_PORT"),
            keep_runs_days=_whole_number(
                env, "PREPAID_KEEP_RUNS_DAYS", KEEP_RUNS_DAYS, 1, 10 * _LONGEST
            ),
            free_mb=_whole_number(env, "PREPAID_FREE_MB", FREE_MB, 0, 10**9),
            unsent_hours=_whole_number(env, "PREPAID_UNSENT_HOURS", UNSENT_HOURS, 1, 10**4),
            log_format=log_format(env, "PREPAID_LOG_FORMAT"),
            alert_webhook=webhook(env, "PREPAID_ALERT_WEBHOOK"),
        ),
        mails=mail_settings(env, _whole_number),
        locale=_locale(env),
        report_recipients=_addresses(env, "PREPAID_REPORT_RECIPIENTS"),
    )


def parse_month(text: str) -> date:
    """The first day of a month written as YYYY-MM. Raises ValueError."""
    if len(text) != len("2026-01"):
        raise ValueError(text)
    return date.fromisoformat(f"{text}-01")


def _whole_number(
    env: Mapping[str, str], name: str, default: int, lowest: int, highest: int
) -> int:
    text = env.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        raise SettingError(f"{name}={text!r}: expected a whole number from {lowest} to {highest}")
    return value


def _port(env: Mapping[str, str], name: str) -> int | None:
    if (env.get(name) or "off") == "off":
        return None
    try:
        return _whole_number(env, name, 0, 1, 65535)
    except SettingError as error:
        raise SettingError(f"{error}, or off") from None


def _chasing(env: Mapping[str, str]) -> tuple[tuple[int, ...], int | None]:
    """The days of reminders and the days to pay, which must leave room for the last reminder."""
    days = _rising_days(env, "PREPAID_REMINDER_DAYS", REMINDER_DAYS)
    if (env.get("PREPAID_PAYMENT_DAYS") or "").strip() == "never":
        return days, None
    try:
        payment_days = _whole_number(env, "PREPAID_PAYMENT_DAYS", PAYMENT_DAYS, 1, _LONGEST)
    except SettingError as error:
        raise SettingError(f"{error}, or never") from None
    if days and days[-1] >= payment_days:
        raise SettingError(
            f"PREPAID_PAYMENT_DAYS='{payment_days}': expected more than the last day of"
            f" PREPAID_REMINDER_DAYS, which is {days[-1]}"
        )
    return days, payment_days


def _rising_days(env: Mapping[str, str], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    # Unlike other settings an empty one is not the default: an empty list is no reminder.
    if (text := env.get(name)) is None:
        return default
    if text.strip() in ("", "none"):
        return ()
    try:
        days = tuple(int(part) for part in text.split(","))
    except ValueError:
        days = (0,)
    if days[0] < 1 or days[-1] > _LONGEST or list(days) != sorted(set(days)):
        raise SettingError(
            f"{name}={text!r}: expected whole numbers from 1 to {_LONGEST} that rise, separated by"
            " commas, such as 3,7,14, or none"
        )
    return days


def _locale(env: Mapping[str, str]) -> str:
    # Whether CLDR knows it, and whether there are texts, is asked when a report is written.
    name = (env.get("PREPAID_LOCALE") or "en_GB").replace("-", "_")
    if not re.fullmatch(r"[A-Za-z]{2,3}(_[A-Za-z]{4})?(_[A-Za-z]{2}|_[0-9]{3})?", name):
        raise SettingError(
            f"PREPAID_LOCALE={name!r}: expected a locale such as en_GB, en_US or de_DE"
        )
    return name


def _addresses(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    parts = [part.strip() for part in (env.get(name) or "").split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", part):
            raise SettingError(
                f"{name}: {part!r} is no e-mail address: expected addresses separated by commas,"
                " such as board@example.com,cfo@example.com"
            )
    return tuple(dict.fromkeys(parts))


def _timezone(env: Mapping[str, str]) -> ZoneInfo:
    name = env.get("PREPAID_TIMEZONE") or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingError(
            f"PREPAID_TIMEZONE={name!r}: expected a time zone such as Europe/Berlin"
        ) from None


def _month(env: Mapping[str, str], name: str, default: str) -> date:
    text = env.get(name) or default
    try:
        return parse_month(text)
    except ValueError:
        raise SettingError(f"{name}={text!r}: expected a month such as 2015-01") from None


def _currency(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name) or None
    if text is not None and not re.fullmatch(r"[A-Z]{3}", text, re.ASCII):
        raise SettingError(f"{name}={text!r}: expected an ISO 4217 currency code such as USD")
    return text
