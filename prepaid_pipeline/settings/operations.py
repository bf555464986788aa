"""The settings of running it: ports for looking, what is kept, logs, alerts, room on the disks."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prepaid_pipeline.errors import SettingError

LOG_FORMATS = ("text", "json")
KEEP_RUNS_DAYS, FREE_MB, UNSENT_HOURS = 90, 500, 24


@dataclass(frozen=True)
class OperationsSettings:
    """``read_only_port`` and ``metrics_port`` are on 127.0.0.1; None: not served.

    ``keep_runs_days`` (days) is how long ended runs are kept, ``free_mb`` (10^6 bytes) what must be
    free on each disk, ``unsent_hours`` after how many hours a mail that was not sent is told.
    ``alert_webhook`` is an http or https URL, None unless it was given.
    """

    read_only_port: int | None
    metrics_port: int | None
    keep_runs_days: int
    free_mb: int
    unsent_hours: int
    log_format: str
    alert_webhook: str | None


def log_format(env: Mapping[str, str], name: str) -> str:
    """Read text or json. Raises SettingError."""
    text = env.get(name) or LOG_FORMATS[0]
    if text not in LOG_FORMATS:
        raise SettingError(f"{name}={text!r}: expected {' or '.join(LOG_FORMATS)}")
    return text


def webhook(env: Mapping[str, str], name: str) -> str | None:
    """Read a URL such as https://hooks.example.com/T1. Raises SettingError, without the URL: it
    often contains the secret that lets one post there.
    """
    if not (text := env.get(name)):
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingError(
            f"{name} cannot be read: expected a URL such as https://hooks.example.com/T1"
        )
    return text
