"""At most one daemon works on a database, and the doctor sees one that did not ask."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.service import daemon as daemon_module
from prepaid_pipeline.operations.service import guards, processes
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.operations.service.lock import DAEMON, SessionLock, holder
from prepaid_pipeline.settings.load import Settings
from tests.operations.service.running import wait


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    return {**os.environ, **prepare_dagster_home(settings), "PYTHONUNBUFFERED": "1"}


@contextmanager
def daemon(*arguments: str, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environ,
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.long
def test_a_second_one_is_refused_and_one_by_hand_is_seen(
    settings: Settings, engine: Engine, environ: dict[str, str], tmp_path: Path
) -> None:
    assert guards.daemon(engine) == "not running"
    # A code server that never comes: a daemon goes on without.
    workspace = processes.write_workspace(settings, tmp_path / "no.sock")
    ours, log = processes.daemon(workspace), tmp_path / "log"
    with daemon(*ours, environ=environ, log=log) as first:
        wait(lambda: holder(engine, DAEMON) is not None, 60)
        assert f"process {first.pid}" in guards.daemon(engine)
        with daemon(*ours, environ=environ, log=tmp_path / "second") as second:
            assert second.wait(60) == 1
        said = (tmp_path / "second").read_text()
        assert "A daemon runs on this database already (prepaid daemon on" in said
        by_hand = ("dagster._daemon", "run", "--workspace", str(workspace))
        with daemon(*by_hand, environ=environ, log=tmp_path / "third"):
            wait(lambda: "not the only one" in str(holder(engine, DAEMON)), 60)
            with pytest.raises(PrepaidError, match="Two daemons work on this database"):
                guards.daemon(engine)
    assert "Another daemon works on this database" in log.read_text()
    assert holder(engine, DAEMON) is None


def test_a_second_one_ends_before_it_does_anything(
    settings: Settings, engine: Engine, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    # It is for a process of its own.
    monkeypatch.setattr(daemon_module.logs, "configure_service", lambda _: "colored")
    monkeypatch.setattr("sys.argv", ["daemon", "no-workspace.yaml"])
    with (
        SessionLock(engine, DAEMON),
        pytest.raises(SystemExit, match=r"A daemon runs on this database already .prepaid daemon"),
    ):
        daemon_module.main()


def test_one_by_hand_alone_is_seen_too(
    engine: Engine, settings: Settings, environ: dict[str, str]
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE dagster.daemon_heartbeats (daemon_type text, daemon_id text,"
                " timestamp timestamp, body text)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO dagster.daemon_heartbeats VALUES ('SENSOR', 'by hand',"
                " clock_timestamp() AT TIME ZONE 'UTC' - interval '36 s')"
            )
        )
    assert guards.daemon(engine) == "not running"
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dagster.daemon_heartbeats SET timestamp = timestamp + interval '20 s'")
        )
    with pytest.raises(PrepaidError, match=r"A daemon without the lock worked .* 16 s ago"):
        guards.daemon(engine)


def test_the_lock_is_kept_over_a_lost_session(engine: Engine) -> None:
    with SessionLock(engine, DAEMON) as lock:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(session_pid) FROM prepaid.locks"
                    " WHERE name = 'prepaid daemon'"
                )
            )
        wait(lambda: holder(engine, DAEMON) is None, 10)
        assert not lock.keep()
        assert lock.keep()
        assert holder(engine, DAEMON) is not None
    assert holder(engine, DAEMON) is None
