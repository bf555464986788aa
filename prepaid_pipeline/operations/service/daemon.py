"""Dagster's daemon, at most one per database: it holds a lease of ``prepaid.locks`` while it runs.

``prepaid up`` and the systemd units start it (``python -m`` this module, with its WORKSPACE) in the
environment that ``dagster_instance`` makes. Dagster itself does not keep two daemons from working
on one instance; it only says so in a log.
"""

import logging
import os
import signal
import sys
import threading
import time

from dagster import DagsterInstance
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import daemon_controller_from_instance
from dagster._utils.interrupts import capture_interrupts
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.service import in_process_runs
from prepaid_pipeline.operations.service.lock import DAEMON, AlreadyUp, SessionLock
from prepaid_pipeline.operations.service.patience import connect_soon, look_soon
from prepaid_pipeline.settings.load import load

log = logging.getLogger(__name__)

# Dagster's daemons write one every 30 s.
HEARTBEAT_SECONDS = 35.0
NOT_ALONE = "prepaid daemon, which is not the only one"
_WATCH_SECONDS = 2.0
_LOST_RUNS_SECONDS = 30.0


def other_daemon(engine: Engine, own: str | None = None) -> float | None:
    """How many seconds ago a daemon other than ``own`` was alive; None if there is none.

    Looks back a little longer than the daemons' heartbeats are apart.
    """
    with engine.connect() as connection:
        if (
            not queries.statement("operations/service/heartbeats", "is_there")
            .execute(connection, {})
            .scalar()
        ):
            return None
        asked = {"own": own, "seconds": HEARTBEAT_SECONDS}
        row = (
            queries.statement("operations/service/heartbeats", "fresh")
            .execute(connection, asked)
            .first()
        )
    return None if row is None else float(row.seconds)


def main() -> None:
    """Run until SIGINT or SIGTERM. Exit code 1 if another daemon has the lock."""
    settings = load()
    log_format = logs.configure_service(settings)
    connect_soon()
    look_soon()
    engine = connections.engine(settings)
    try:
        with SessionLock(engine, DAEMON) as lock, DagsterInstance.get() as instance:
            # What a daemon that was killed left: the lock says that it is gone.
            instance.wipe_daemon_heartbeats()
            _run(instance, sys.argv[1], log_format, engine, lock)
            instance.wipe_daemon_heartbeats()
    except PrepaidError as error:
        sys.exit(f"prepaid: {error}")
    finally:
        engine.dispose()


def _run(
    instance: DagsterInstance, workspace: str, log_format: str, engine: Engine, lock: SessionLock
) -> None:
    ended = threading.Event()
    target = WorkspaceFileTarget([workspace])
    try:
        with (
            capture_interrupts(),
            daemon_controller_from_instance(instance, target, log_format=log_format) as controller,
        ):
            watch = threading.Thread(
                target=_watch,
                args=(instance, engine, lock, controller._daemon_uuid, ended),
                daemon=True,
            )
            watch.start()
            controller.check_daemon_loop()
    except KeyboardInterrupt:
        return
    finally:
        ended.set()


def _watch(
    instance: DagsterInstance, engine: Engine, lock: SessionLock, own: str, ended: threading.Event
) -> None:
    """Keep the lock over a restart of the database, let the doctor see a daemon without it, and
    close the runs of commands that were killed.
    """
    alone, next_look = True, 0.0
    while not ended.wait(_WATCH_SECONDS):
        try:
            if not lock.keep():
                continue
            if time.monotonic() >= next_look:
                _close_lost_runs(instance, engine)
                next_look = time.monotonic() + _LOST_RUNS_SECONDS
            was_alone, alone = alone, other_daemon(engine, own) is None
            if alone != was_alone:
                lock.say("" if alone else NOT_ALONE)
            if was_alone and not alone:
                log.error("Another daemon works on this database, started without the lock.")
        except AlreadyUp as error:
            logs.event(log, str(error), logging.ERROR)
            os.kill(os.getpid(), signal.SIGINT)
            return
        except DBAPIError:
            continue


def _close_lost_runs(instance: DagsterInstance, engine: Engine) -> None:
    try:
        in_process_runs.close_lost(instance, engine)
    except Exception as error:
        # Of Dagster's storage there are several kinds; whatever it is, the lock is to be kept.
        failed = {"error": type(error).__name__}
        logs.event(log, "runs cannot be read", logging.WARNING, **failed)


if __name__ == "__main__":
    main()
