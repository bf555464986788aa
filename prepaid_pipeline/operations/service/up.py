"""``prepaid up``: the database, then Dagster's code server, webserver and daemon, until it ends."""

import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dagster import DagsterInstance
from sqlalchemy import Engine

from prepaid_pipeline.database import connections, embedded
from prepaid_pipeline.desk import serve
from prepaid_pipeline.errors import PrepaidError, SettingError
from prepaid_pipeline.operations import installation
from prepaid_pipeline.operations.dagster_ui import links
from prepaid_pipeline.operations.service import guards, in_process_runs, metrics, processes
from prepaid_pipeline.operations.service.code_server import close_lost_runs
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.operations.service.lock import UP, SessionLock
from prepaid_pipeline.operations.service.processes import HOST
from prepaid_pipeline.operations.service.supervisor import StopRequest, Supervisor
from prepaid_pipeline.settings.desk import load as load_desk
from prepaid_pipeline.settings.load import Settings

_START_SECONDS = 180.0
_LOCK_CHECK_SECONDS = 1.0


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring everything up and keep it up until Ctrl-C or SIGTERM; ``say`` tells the user.

    A process that dies is started again, the embedded database too. Raises SettingError for a port
    that is taken, AlreadyUp, DatabaseNotReady, and ProcessEnded if a process dies at the start or
    again and again; everything that was started here is stopped in any case.
    """
    stop = StopRequest()
    with ExitStack() as stack:
        if settings.database_url is None and embedded.running_url(settings.home) is None:
            # Before it starts: a Ctrl-C while it starts must stop it too.
            stack.callback(embedded.stop, settings.home)
        desk = load_desk()
        say("Starting the database …")
        engine = connections.engine(settings)
        stack.callback(engine.dispose)
        lock = stack.enter_context(SessionLock(engine, UP, f", port {settings.port}"))
        for setting, port in _ports(settings).items():
            _require_free_port(setting, port)
        if desk.port is not None:
            serve.require_free_port(desk)
        guards.require_safe(settings, engine)
        for line in installation.migrate(engine, settings):
            say(line)
        lock.keep()  # of a database that had no locks before
        environ = prepare_dagster_home(settings)
        # The UI has the desk's sign-in, whether there is a desk or not.
        environ |= serve.environ(settings, desk)
        os.environ.update(environ)
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-")))
        socket_path = processes.code_socket(settings, sockets)
        supervisor = Supervisor(settings.dagster_home, settings.home / "log", environ)
        stack.callback(supervisor.stop)
        stack.callback(say, "Stopping …")
        say("Starting Dagster …")
        _make_storage(engine)
        _start(supervisor, settings, socket_path, stop)
        if settings.metrics_port is not None:
            stack.callback(metrics.serve(engine, settings, settings.metrics_port).shutdown)
        if desk.port is not None and not stop.requested:
            supervisor.start("desk", ["prepaid_pipeline.desk.serve"])
            _wait(lambda: serve.answers(desk), "the sign-off desk", supervisor, stop)
            say(f"Sign-off desk: {desk.url}")
        if not stop.requested:
            say(f"Dagster UI: {settings.ui_url}   (logs: {settings.home / 'log'})")
            if (link := links.make(engine, settings, desk)) is not None:
                say(f"Nobody has a password yet: this link signs you in to it, once: {link}")
            if settings.metrics_port is not None:
                say(f"Metrics: http://{HOST}:{settings.metrics_port}/metrics")
            say("Stop with Ctrl-C.")
        _keep_up(supervisor, settings, lock, stop, say)
    say("Stopped.")


def _keep_up(
    supervisor: Supervisor,
    settings: Settings,
    lock: SessionLock,
    stop: StopRequest,
    say: Callable[[str], None],
) -> None:
    """Until asked to stop: start again what dies, the embedded server too."""
    reachable, next_check = True, time.monotonic()
    while not stop.requested:
        if time.monotonic() >= next_check:
            was, reachable = reachable, lock.keep()
            if reachable != was:
                say("The database answers again." if reachable else "The database does not answer.")
            if not reachable and settings.database_url is None:
                _start_server_again(settings, say)
            next_check = time.monotonic() + _LOCK_CHECK_SECONDS
        supervisor.tend(lambda: reachable, say)  # noqa: B023
        time.sleep(0.2)


def _start_server_again(settings: Settings, say: Callable[[str], None]) -> None:
    if embedded.running_url(settings.home) is None:
        say("The embedded PostgreSQL has ended; it is started again.")
        try:
            embedded.start(settings.home)
        except PrepaidError as error:
            say(str(error))  # and again in a moment


def _ports(settings: Settings) -> dict[str, int]:
    metrics_port = settings.metrics_port
    return {"PREPAID_PORT": settings.port} | (
        {"PREPAID_METRICS_PORT": metrics_port} if metrics_port else {}
    )


def _start(supervisor: Supervisor, settings: Settings, socket: Path, stop: StopRequest) -> None:
    workspace = processes.write_workspace(settings, socket)
    supervisor.start("code-server", processes.code_server(socket))
    _wait(lambda: _listens(socket), "the code server", supervisor, stop)
    supervisor.start("webserver", processes.webserver(workspace))
    supervisor.start("daemon", processes.daemon(workspace))
    _wait(lambda: _answers(settings.port), "the webserver", supervisor, stop)


def _make_storage(engine: Engine) -> None:
    # Once, before the processes would all make the tables at the same moment. We hold the lock: no
    # run of a code server that counts as live has anybody who works on it.
    with DagsterInstance.get() as instance:
        close_lost_runs(instance)
        in_process_runs.close_lost(instance, engine)


def _wait(ready: Callable[[], bool], what: str, supervisor: Supervisor, stop: StopRequest) -> None:
    stop_by = time.monotonic() + _START_SECONDS
    while not stop.requested and not ready():
        supervisor.check()
        if time.monotonic() > stop_by:
            raise PrepaidError(f"{what} does not answer after {_START_SECONDS:.0f} s.")
        time.sleep(0.2)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _require_free_port(setting: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingError(
                f"Port {port} cannot be used: {error.strerror}. Stop what listens there"
                f" ('prepaid up' elsewhere?) or set {setting} to another one."
            ) from error
