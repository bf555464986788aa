"""Dagster's code server: it holds our definitions, evaluates sensors, starts the runs' processes.

``prepaid up`` and the systemd units start it (``python -m`` this module, with its SOCKET) in the
environment that ``dagster_instance`` makes.
"""

import json
import logging
import sys

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter, _loggers
from dagster._cli.api import api_cli
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.server import DagsterApiServer

from prepaid_pipeline import logs
from prepaid_pipeline.operations.service.patience import connect_soon
from prepaid_pipeline.orchestration.former_names import keep_schedule_states
from prepaid_pipeline.settings.load import load

log = logging.getLogger(__name__)

_LIVE = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def close_lost_runs(instance: DagsterInstance, socket: str | None = None) -> int:
    """Mark as failed the live runs of a code server that is gone; how many.

    Only those started through ``socket``; without one, all. Nobody works on them any more, but
    until the time limit of a run they would count as live and block their queue.
    """
    closed = 0
    for run in instance.get_runs(RunsFilter(statuses=_LIVE)):
        started_by = run.tags.get(GRPC_INFO_TAG)
        if started_by is None or socket not in (None, json.loads(started_by).get("socket")):
            continue
        instance.report_run_failed(run, "The code server ended while this run was in progress.")
        closed += 1
    return closed


def watch_runs() -> None:
    """Let the server's watch over its runs outlive the database.

    Dagster 1.13 has a thread that marks a run as failed whose process died. It ends at the first
    error, such as a database that is down at that moment; every run whose process dies after that
    would count as live, and block its queue, until its time limit.
    """
    look = DagsterApiServer._check_for_orphaned_runs

    def look_again(self: DagsterApiServer) -> None:
        try:
            look(self)
        except Exception as error:
            # Whatever it is, the next look is due in a moment.
            failed = {"error": type(error).__name__}
            logs.event(log, "runs cannot be read", logging.WARNING, **failed)

    DagsterApiServer._check_for_orphaned_runs = look_again  # type: ignore[method-assign]


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings = load()
    log_format = logs.configure_service(settings)
    connect_soon()
    (socket,) = sys.argv[1:]
    with DagsterInstance.get() as instance:
        close_lost_runs(instance, socket)
        keep_schedule_states(instance)
    watch_runs()
    api_cli(
        [
            "grpc",
            "--socket",
            socket,
            "--module-name",
            "prepaid_pipeline.definitions",
            "--location-name",
            "prepaid_pipeline",
            "--use-python-environment-entry-point",
            "--log-format",
            log_format,
        ],
    )


def begin_run_process() -> None:
    """Let the events of a run go where the code server's go, in the same format."""
    if logs.configure_service(load()) == "json":
        _loggers.create_console_logger = logs.run_logger  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # The process of a run, which multiprocessing starts with the module of its parent.
    begin_run_process()
