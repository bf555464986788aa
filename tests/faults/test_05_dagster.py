"""Fault 5: the processes of a real `prepaid up` are killed, and its database goes away.

Work flows from purchase to active plan by the daemon's own sensors; each time something dies in the
middle, and what must have happened once has happened once, every run is closed, and ticks go on.
"""

import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prepaid_pipeline.database import embedded
from tests.faults.dagster_world import Running, running, wait_for
from tests.faults.recorder import Recorder
from tests.operations.service.running import wait

pytestmark = [pytest.mark.fault, pytest.mark.long]

PLANS = 200
OUTAGE_SECONDS = 8.0
# From recovery to the next tick that is due.
TICK_SECONDS = 5.0
# A sensor looks every 30 s, waits 2 minutes after a failure, and a run takes 10 s to start.
WORK_SECONDS = 300.0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = Path(tempfile.mkdtemp(prefix="prepaid-fault5-"))
    with running(tmp_path_factory.mktemp("up") / "output", home) as found:
        yield found
    shutil.rmtree(home, ignore_errors=True)


def run_begun(real: Running, job: str) -> None:
    """Wait until a run of the job has a process, and has begun."""
    wait_for(lambda: real.run_is(job, "STARTED") and real.run_worker() is not None, 120, 0.05)


def flow(real: Running, job: str, fault: Callable[[], float | None]) -> float | None:
    """Let plans flow; ``fault`` strikes while a run of ``job`` is going on. What it returns."""
    real.buy(PLANS)
    if job == "settle_renewals":
        wait_for(real.invoiced, WORK_SECONDS)
        real.pay()
    run_begun(real, job)
    late = fault()
    wait_for(real.invoiced, WORK_SECONDS)
    if job != "settle_renewals":
        real.pay()
    wait_for(real.settled, WORK_SECONDS)
    return late


def finish(real: Running, record: Recorder, what: str, late: float | None = None) -> None:
    """Everything ends closed; nothing is missing and nothing is there twice."""
    wait_for(lambda: real.live_runs() == 0, WORK_SECONDS)
    found = real.violations()
    if late is not None:
        what += f"; next tick {late:.1f} s after recovery"
    record(fault=5, what=what, points=1, violations=found + ((late or 0) > TICK_SECONDS))
    assert found == 0
    assert late is None or late <= TICK_SECONDS


@pytest.mark.parametrize("job", ["open_renewals", "settle_renewals"])
def test_a_run_is_killed(real: Running, record: Recorder, job: str) -> None:
    def fault() -> None:
        worker = real.run_worker()
        assert worker is not None
        worker.kill()

    flow(real, job, fault)
    finish(real, record, f"SIGKILL of the worker of a run of `{job}`")


def test_the_code_server_is_killed(real: Running, record: Recorder) -> None:
    def fault() -> None:
        server_process = real.child("service.code_server")
        worker = real.run_worker()
        server_process.kill()
        # With it its runs: nobody would note their end.
        assert worker is not None
        wait(lambda: not worker.is_running(), 20)
        said = "The code-server is restarted."
        wait(lambda: said in real.up.output.read_text(), 60)

    flow(real, "settle_renewals", fault)
    finish(real, record, "SIGKILL of the code server during a run, which ends with it")


def test_the_daemon_is_killed_during_a_tick(real: Running, record: Recorder) -> None:
    ticking = "SELECT count(*) FROM dagster.job_ticks WHERE status = 'STARTED' AND type = 'SENSOR'"
    alive = (
        "SELECT count(*) FROM dagster.daemon_heartbeats"
        " WHERE extract(epoch FROM timestamp AT TIME ZONE 'UTC') > %s::float8"
    )
    real.buy(PLANS)
    daemon = real.child("service.daemon")
    wait_for(lambda: bool(real.ask(ticking)), 60, 0.002)
    due, killed = real.due(), time.time()
    daemon.kill()
    wait(lambda: "The daemon is restarted." in real.up.output.read_text(), 60)
    # It lives again when it sends a heartbeat: it has deleted what the killed one left.
    wait_for(lambda: bool(real.ask(alive, killed)), 90)
    late = real.late_tick(time.time(), due)
    wait_for(real.invoiced, WORK_SECONDS)
    real.pay()
    wait_for(real.settled, WORK_SECONDS)
    finish(real, record, "SIGKILL of the daemon during a tick", late)


def test_the_webserver_is_killed(real: Running, record: Recorder) -> None:
    def fault() -> None:
        real.child("operations.dagster_ui.serve").kill()
        said = "The webserver is restarted."
        wait(lambda: said in real.up.output.read_text(), 60)

    flow(real, "open_renewals", fault)
    finish(real, record, "SIGKILL of the webserver during a run")


@pytest.mark.parametrize("job", ["open_renewals", "settle_renewals"])
def test_the_database_is_down_for_a_while(real: Running, record: Recorder, job: str) -> None:
    def fault() -> float:
        due = real.due()
        real.world.engine.dispose()
        assert embedded.stop(real.data)
        time.sleep(OUTAGE_SECONDS)
        embedded.start(real.data)
        return real.late_tick(time.time(), due)

    late = flow(real, job, fault)
    what = f"PostgreSQL down for {OUTAGE_SECONDS:.0f} s during a run of `{job}`"
    finish(real, record, what, late)


_START = """mutation { launchRun(executionParams: {selector: {
    repositoryName: "__repository__", repositoryLocationName: "prepaid_pipeline",
    jobName: "clean_up"}}) { __typename } }"""


def test_those_who_only_look_change_nothing(real: Running) -> None:
    """The metrics; and of Dagster's UI whoever is not signed in."""

    def answer(setting: str, path: str, query: str | None = None) -> str:
        body = None if query is None else json.dumps({"query": query}).encode()
        url = f"http://127.0.0.1:{real.up.environ[setting]}{path}"
        asked = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as page:
            return str(page.read().decode())

    measured = answer("PREPAID_METRICS_PORT", "/metrics")
    assert "prepaid_database_up 1.0" in measured
    assert "prepaid_daemon_heartbeat_age_seconds" in measured
    with pytest.raises(urllib.error.HTTPError, match="403"):
        answer("PREPAID_PORT", "/graphql", _START)
    assert real.up.ask(_START)["launchRun"]["__typename"] == "LaunchRunSuccess"
