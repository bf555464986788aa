"""One process of an installation alone, for a service manager that keeps it running.

``prepaid up`` is all of them at once, on one machine and with an embedded database if there is no
other. Here each is what its systemd unit starts (deploy/).
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sqlalchemy import Engine

from prepaid_pipeline.database import connections, migrations
from prepaid_pipeline.desk import serve
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.operations.service import guards, metrics, processes
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings

PARTS = ("code-server", "daemon", "webserver", "metrics")


def run(settings: Settings, part: str) -> None:
    """Become that process, or for metrics serve them, until SIGINT or SIGTERM.

    Raises SettingError without PREPAID_DATABASE_URL or for a port that is not set,
    DatabaseNotReady, and what ``guards`` finds unsafe.
    """
    if settings.database_url is None:
        raise SettingError(
            "PREPAID_DATABASE_URL is not set: a single process needs a database that runs"
            " separately. 'prepaid up' starts all of them with the embedded one."
        )
    engine = connections.engine(settings)
    try:
        migrations.require_current(engine)
        guards.require_safe(settings, engine)
        if part == "metrics":
            _serve_metrics(engine, settings)
            return
    finally:
        engine.dispose()
    environ = prepare_dagster_home(settings)
    if part == "webserver":
        environ |= serve.environ(settings, load_desk())
    _become(_arguments(settings, part), environ, settings.dagster_home)


def _arguments(settings: Settings, part: str) -> Sequence[str]:
    socket = processes.code_socket(settings)
    workspace = processes.write_workspace(settings, socket)
    if part == "code-server":
        return processes.code_server(socket)
    if part == "daemon":
        return processes.daemon(workspace)
    return processes.webserver(workspace)


def _become(arguments: Sequence[str], environ: Mapping[str, str], directory: Path) -> NoReturn:
    os.chdir(directory)
    command = [sys.executable, "-m", *arguments]
    os.execve(sys.executable, command, {**os.environ, **environ})


def _serve_metrics(engine: Engine, settings: Settings) -> None:
    port = settings.metrics_port
    if port is None:
        raise SettingError("PREPAID_METRICS_PORT is not set: expected a port")
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server = metrics.serve(engine, settings, port)
    ended.wait()
    server.shutdown()
