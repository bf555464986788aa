"""How long a process of Dagster's waits for a database that is away."""

from dagster_postgres import utils

_CONNECT_SECONDS = 1.0


def connect_soon() -> None:
    """Let this process find a database that comes back within a second.

    dagster-postgres waits 0.2, 0.6, 1.4, 3 and 6.2 s between its attempts to connect: after an
    outage of some seconds a tick would come more than 5 s late.
    """
    utils.calculate_delay = lambda **_: _CONNECT_SECONDS  # type: ignore[attr-defined]
