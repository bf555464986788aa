"""``prepaid up``: the database, then Dagster's code server, webserver and daemon, until it ends."""

import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import GRPC_INFO_TAG

from prepaid_pipeline import database, installation, migrations
from prepaid_pipeline.desk import configuration, serve
from prepaid_pipeline.errors import PrepaidError, SettingError
from prepaid_pipeline.service import server
from prepaid_pipeline.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.service.lock import UpLock
from prepaid_pipeline.service.supervisor import StopRequest, Supervisor
from prepaid_pipeline.settings import Settings

HOST = "127.0.0.1"
_START_SECONDS = 180.0
_LOCK_CHECK_SECONDS = 5.0


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring everything up and keep it up until Ctrl-C or SIGTERM; ``say`` tells the user.

    Raises SettingError for a port that is taken, AlreadyUp, DatabaseNotReady, and ProcessEnded if
    one of the processes dies; everything that was started here is stopped in any case.
    """
    stop = StopRequest()
    with ExitStack() as stack:
        if settings.database_url is None and server.running_url(settings.home) is None:
            # Before it starts: a Ctrl-C while it starts must stop it too.
            stack.callback(server.stop, settings.home)
        desk = configuration.load()
        say("Starting the database …")
        engine = database.engine(settings)
        stack.callback(engine.dispose)
        lock = stack.enter_context(UpLock(engine, settings.port))
        _require_free_port(settings.port)
        if desk.port is not None:
            serve.require_free_port(desk)
        migrations.upgrade(engine)
        installation.write_settings(engine, settings)
        environ = prepare_dagster_home(settings)
        if desk.port is not None:
            environ |= serve.environ(settings, desk)
        # A socket's path may have 108 characters at most, and PREPAID_HOME can be long.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-")))
        supervisor = Supervisor(settings.home / "log", settings.dagster_home, environ)
        stack.callback(supervisor.stop)
        stack.callback(say, "Stopping …")
        say("Starting Dagster …")
        _start(supervisor, environ, settings, sockets / "code.sock", stop)
        if desk.port is not None and not stop.requested:
            supervisor.start("desk", ["prepaid_pipeline.desk.serve"])
            _wait(lambda: serve.answers(desk), "the sign-off desk", supervisor, stop)
            say(f"Sign-off desk: {desk.url}")
        if not stop.requested:
            say(f"Dagster UI: http://{HOST}:{settings.port}   (logs: {settings.home / 'log'})")
            say("Stop with Ctrl-C.")
        next_check = time.monotonic() + _LOCK_CHECK_SECONDS
        while not stop.requested:
            supervisor.check()
            if time.monotonic() > next_check:
                lock.keep()
                next_check = time.monotonic() + _LOCK_CHECK_SECONDS
            time.sleep(0.2)
    say("Stopped.")


def _start(
    supervisor: Supervisor,
    environ: Mapping[str, str],
    settings: Settings,
    code: Path,
    stop: StopRequest,
) -> None:
    workspace = settings.dagster_home / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - grpc_server:\n"
        f"      socket: {code}\n      location_name: prepaid_pipeline\n",
        encoding="utf-8",
    )
    supervisor.start(
        "code-server",
        ["dagster", "api", "grpc", "--socket", str(code), "--module-name",
         "prepaid_pipeline.definitions", "--location-name", "prepaid_pipeline",
         "--use-python-environment-entry-point"],
    )  # fmt: skip
    _make_storage(environ)
    _wait(lambda: _listens(code), "the code server", supervisor, stop)
    supervisor.start(
        "webserver",
        ["dagster_webserver", "--host", HOST, "--port", str(settings.port),
         "--workspace", str(workspace)],
    )  # fmt: skip
    supervisor.start("daemon", ["dagster._daemon", "run", "--workspace", str(workspace)])
    _wait(lambda: _answers(settings.port), "the webserver", supervisor, stop)


def _make_storage(environ: Mapping[str, str]) -> None:
    # Once, before the webserver and the daemon would both make the tables at the same moment.
    os.environ.update(environ)
    with DagsterInstance.get() as instance:
        _close_lost_runs(instance)


def _close_lost_runs(instance: DagsterInstance) -> None:
    # Runs of a `prepaid up` that was killed. Nobody works on them any more (we hold the lock), but
    # until the time limit of a run they would count as live and block their queue.
    live = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    for run in instance.get_runs(RunsFilter(statuses=live)):
        if GRPC_INFO_TAG in run.tags:
            instance.report_run_failed(run, "'prepaid up' ended while this run was going on.")


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
        with urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingError(
                f"Port {port} cannot be used: {error.strerror}. Stop what listens there"
                " ('prepaid up' elsewhere?) or set PREPAID_PORT to another one."
            ) from error
