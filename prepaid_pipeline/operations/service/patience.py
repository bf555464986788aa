"""How long the processes of Dagster wait: for a database that is away, and between two looks."""

from dagster._daemon import sensor
from dagster_postgres import utils

_CONNECT_SECONDS = 1.0
_LOOK_SECONDS = 2.0


def connect_soon() -> None:
    """Let this process find a database that comes back within a second.

    dagster-postgres waits 0.2, 0.6, 1.4, 3 and 6.2 s between its attempts to connect: after an
    outage of some seconds a tick would come more than 5 s late.
    """
    utils.calculate_delay = lambda **_: _CONNECT_SECONDS  # type: ignore[attr-defined]


def look_soon() -> None:
    """Let this daemon look for sensors that are due every 2 s instead of every 5.

    A look that meets the end of an outage is lost: the next one would come after 5 s. How often a
    sensor itself asks is not changed by it.
    """
    sensor.MIN_INTERVAL_LOOP_TIME = _LOOK_SECONDS  # type: ignore[assignment]
