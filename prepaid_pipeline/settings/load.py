"""Settings: what the environment says, read when it is asked for and never at import."""

import os
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.mail import MailSettings
from prepaid_pipeline.settings.operations import OperationsSettings
from prepaid_pipeline.settings.parsers import parse_month, parsed, pattern, zone
from prepaid_pipeline.settings.renewals import RenewalSettings
from prepaid_pipeline.settings.sign_offs import SignOffSettings

# What was a setting once: ignored, it would still seem to do something.
GONE = {
    "PREPAID_READ_ONLY_PORT": (
        "the UI on PREPAID_PORT serves everybody who signs in, and only the team engineering"
        " starts, stops or changes anything there. Remove the setting, and the unit"
        " prepaid-read-only if you have it (docs/operate.md)"
    ),
}


def _directory(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _locale(text: str) -> str:
    return text.replace("-", "_")


class Settings(RenewalSettings, SignOffSettings, MailSettings, OperationsSettings):
    """One installation's settings; ``docs/settings.md`` describes each for who sets it."""

    home: Annotated[Path, BeforeValidator(_directory)] = Field(
        default_factory=lambda: _directory(".prepaid"), description="where it keeps its files"
    )
    database_url: str | None = Field(
        None, description="a PostgreSQL; None: the embedded one in home"
    )
    reports: str = Field(
        default_factory=lambda others: str(others["home"] / "reports"),
        description="the path or URL where reports are published",
    )
    timezone: Annotated[ZoneInfo, parsed(zone, "a time zone such as Europe/Berlin")] = Field(
        ZoneInfo("UTC"), description="the time zone of business dates"
    )
    # Whether CLDR knows it, and whether there are texts, is asked when a report is written.
    locale: Annotated[
        str,
        pattern(
            r"[A-Za-z]{2,3}(_[A-Za-z]{4})?(_[A-Za-z]{2}|_[0-9]{3})?",
            "a locale such as en_GB, en_US or de_DE",
        ),
        BeforeValidator(_locale),
    ] = Field("en_GB", description="how reports speak, as CLDR names it")
    first_month: Annotated[date, parsed(parse_month, "a month such as 2015-01")] = Field(
        date(2015, 1, 1), description="the first day of the first month that can be reported"
    )
    reporting_currency: Annotated[
        str | None, pattern("[A-Z]{3}", "an ISO 4217 currency code such as USD")
    ] = Field(None, description="what reports are converted into; None: they are not")

    @property
    def mail_directory(self) -> Path:
        """Where mails go as .eml files while no SMTP server is set."""
        return self.home / "mail"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    def today(self) -> date:
        """The business date: today in the installation's time zone."""
        return datetime.now(self.timezone).date()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read all settings from ``environ`` (default: the process's own).

    Raises SettingError naming the variable, its value and what is expected, or, for one that is no
    longer a setting, what has taken its place.
    """
    given = os.environ if environ is None else environ
    for name, instead in GONE.items():
        if given.get(name):
            raise SettingError(f"{name} is no longer a setting: {instead}")
    return Settings.read(given)
