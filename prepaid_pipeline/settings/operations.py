"""The settings of running it: ports for looking, what is kept, logs, alerts, room on the disks."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from prepaid_pipeline.settings.environment import FromEnvironment
from prepaid_pipeline.settings.parsers import YEAR, one_of, whole_number

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


class OperationsSettings(FromEnvironment):
    """Logs, retention, alerts and ports; all ports are on 127.0.0.1."""

    port: Annotated[int, whole_number(*_PORTS)] = Field(3000, description="Dagster's UI")
    read_only_port: Annotated[int | None, whole_number(*_PORTS, none="off")] = Field(
        None, description="Dagster's UI in which nothing can be changed; None: not served"
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
