"""The settings of running it: ports for looking, what is kept, logs, alerts, room on the disks."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from prepaid_pipeline.settings.environment import FromEnvironment
from prepaid_pipeline.settings.parsers import YEAR, is_loopback, one_of, unguessable, whole_number

_PORTS = (1, 65535)


def _webhook(text: str) -> str:
    """A URL. The error does not show it: it often contains the secret that lets one post there."""
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(" cannot be read: expected a URL such as https://hooks.example.com/T1")
    return text


def _ui_url(text: str) -> str:
    """An address, with a path where a proxy has it below one. Others reach it over TLS only."""
    try:
        url = urlsplit(text)
        usable = bool(url.hostname) and url.port != 0 and not (url.query or url.fragment)
        safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
    except ValueError:
        usable = safe = False
    if not usable or not safe or url.username or not re.fullmatch(r"(/[\w.~-]+)*/?", url.path):
        raise ValueError(
            f"={text!r}: expected an address such as https://dagster.example.com or"
            " https://example.com/dagster; only this machine's own names may go without TLS"
        )
    return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"


class OperationsSettings(FromEnvironment):
    """Logs, retention, alerts and ports; all ports are on 127.0.0.1."""

    port: Annotated[int, whole_number(*_PORTS)] = Field(3000, description="Dagster's UI")
    ui_url: Annotated[str, BeforeValidator(_ui_url)] = Field(
        default_factory=lambda others: f"http://127.0.0.1:{others['port']}",
        description="what people type to get to Dagster's UI, without a slash at the end",
    )
    ui_token: Annotated[str | None, BeforeValidator(unguessable)] = Field(
        None, description="lets programs use Dagster's UI; None: only people do"
    )
    metrics_port: Annotated[int | None, whole_number(*_PORTS, none="off")] = Field(
        None, description="the metrics; None: not served"
    )
    keep_runs_days: Annotated[int, whole_number(1, 10 * YEAR)] = Field(
        90, description="days for which ended runs are kept"
    )
    free_mb: Annotated[int, whole_number(0, 10**9)] = Field(
        500, description="what must be free on each disk, in 10^6 bytes"
    )
    blocked_seconds: Annotated[int, whole_number(1, 3600)] = Field(
        60, description="seconds after which a session that blocks the pipeline is ended"
    )
    unsent_hours: Annotated[int, whole_number(1, 10**4)] = Field(
        24, description="hours after which an email that was not sent raises an alert"
    )
    log_format: Annotated[str, one_of("text", "json")] = Field(
        "text", description="how processes log"
    )
    alert_webhook: Annotated[str | None, BeforeValidator(_webhook)] = Field(
        None, description="a URL to which alerts are posted; None: nowhere"
    )
