"""A killed backfill leaves neither a live run nor a process behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psutil
import pytest
from sqlalchemy import Engine, text

from prepaid_pipeline.database import leases
from prepaid_pipeline.operations.service import in_process_runs
from prepaid_pipeline.settings.load import Settings
from tests.operations.service.conftest import Command
from tests.operations.service.running import PREPAID, left, wait
from tests.world import World


@dg.job
def nothing() -> None: ...


def test_only_runs_that_nobody_works_on_are_closed(engine: Engine) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def run(status: dg.DagsterRunStatus, tags: dict[str, str]) -> str:
            return instance.create_run_for_job(nothing, status=status, tags=tags).run_id

        def statuses() -> list[str]:
            found = (instance.get_run_by_id(run_id) for run_id in (ours, dead, new, of_daemon))
            return [run.status.value for run in found if run is not None]

        tags = in_process_runs.tags()
        ours = run(dg.DagsterRunStatus.STARTED, tags)
        dead = run(dg.DagsterRunStatus.STARTED, tags)
        new = run(dg.DagsterRunStatus.NOT_STARTED, tags)
        of_daemon = run(dg.DagsterRunStatus.STARTED, {})
        with in_process_runs.working(engine, ours):
            assert in_process_runs.close_lost(instance, engine) == 2
            assert statuses() == ["STARTED", "FAILURE", "FAILURE", "STARTED"]
        assert in_process_runs.close_lost(instance, engine) == 1
        assert in_process_runs.close_lost(instance, engine) == 0
    assert World(engine).rows("SELECT FROM prepaid.locks WHERE holder IS NOT NULL") == []


def test_a_lease_is_over_with_its_session_or_its_time(engine: Engine) -> None:
    first = leases.Lease(engine, "run a", "first")
    second = leases.Lease(engine, "run a", "second")
    assert first.take()
    assert not second.take()
    assert first.keep()
    first.leave()  # as when the process was killed
    assert second.take()
    # As if its machine had vanished: the session is still there.
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE prepaid.locks SET leased_until = 'epoch' WHERE name = 'run a'")
        )
    assert leases.holder(engine, "run a") is None
    assert first.take()
    assert not second.renew()
    found = leases.holder(engine, "run a")
    assert found is not None
    assert found.name == "first"
    first.give_back()
    assert leases.holder(engine, "run a") is None
    second.leave()


@contextmanager
def stuck_backfill(
    engine: Engine, settings: Settings, environ: dict[str, str]
) -> Iterator[psutil.Process]:
    """A backfill of three years that waits for its turn to compute figures."""
    command = [PREPAID, "backfill", "2023-11", "2026-10", "--as-of", "2026-10-31"]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with engine.begin() as connection:
        connection.execute(text("SELECT prepaid.take_lock('monthly figures')"))
        process = subprocess.Popen(command, env=environ, cwd=settings.home)
        try:
            wait(lambda: World(engine).sql(waiting) == 1, 120)
            yield psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


@pytest.mark.long
def test_a_killed_backfill(prepaid: Command, engine: Engine, settings: Settings) -> None:
    settings.home.mkdir()
    assert settings.database_url is not None
    environ = {
        **os.environ,
        "PREPAID_HOME": str(settings.home),
        "PREPAID_DATABASE_URL": settings.database_url,
    }
    with stuck_backfill(engine, settings, environ) as killed:
        family = killed.children(recursive=True)
        assert family  # the process that imports ahead
        killed.send_signal(signal.SIGKILL)
        wait(lambda: not left(family), 30)
    world = World(engine)
    assert world.rows("SELECT status FROM dagster.runs") == [("STARTED",)]
    code, output, errors = prepaid("backfill", "2026-10", "2026-10", "--as-of", "2026-10-31")
    assert (code, errors) == (0, "")
    assert "Nothing is active" in output
    assert world.rows("SELECT status FROM dagster.runs ORDER BY id") == [("FAILURE",), ("SUCCESS",)]
