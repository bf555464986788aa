"""Fault 2: PostgreSQL stopped again and again while plans flow; all end right, once."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.business import GOING_ON, Business
from tests.faults.clients import Clients
from tests.faults.recorder import Recorder
from tests.faults.servers import OwnServer
from tests.faults.workers import Workers

pytestmark = pytest.mark.fault
_LEASE_SECONDS = 5
_PATIENCE_SECONDS = 120


def stop_at_random(server: OwnServer, seconds: float, shortest: float, longest: float) -> int:
    """Stop and start the server for so long, in one of three ways each time; how often."""
    until, stops = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        time.sleep(random.uniform(shortest, longest))
        how = random.choice([signal.SIGQUIT, signal.SIGINT, signal.SIGKILL])
        if how == signal.SIGKILL:
            server.crash()
        else:
            server.stop(how)
        server.start()
        stops += 1
    return stops


def flow(
    server: OwnServer,
    business: Business,
    workers: Workers,
    tmp_path: Path,
    plans: int,
    seconds: float,
    shortest: float,
    longest: float,
) -> tuple[int, int, list[str]]:
    """How often the server was stopped, how many runs that ended, and what was wrong afterwards."""
    groups = plans // len(GOING_ON) // 10 * 10
    business.sink.extra = plans  # each may come twice, none three times
    job = {"size": 100, "lease": _LEASE_SECONDS, "stop": str(tmp_path / "stop")}
    daemons = [workers.start(work="daemon", **job) for _ in range(2)]
    with Clients(business, groups, pause=max(0.05, seconds / groups * 5)) as clients:
        stops = stop_at_random(server, seconds, shortest, longest)
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while clients.ordered < groups and time.monotonic() < give_up_at:
            time.sleep(0.2)
    (tmp_path / "stop").touch()
    lost = sum(workers.wait(daemon).said["lost"] for daemon in daemons)
    business.finish()
    wrong = [f"the confirmed decision of task {task} is not there" for task in clients.lost()]
    wrong += [f"a client failed: {error}" for error in clients.failed]
    wrong += business.wrong()
    ended = business.world.sql("SELECT count(*) FROM prepaid.invoices WHERE status = 'Paid'")
    assert clients.ordered == groups
    assert ended >= groups * len(GOING_ON)
    assert clients.decided
    return stops, lost, wrong


@pytest.mark.parametrize(
    ("plans", "seconds", "shortest", "longest"),
    [(120, 10, 0.5, 2), pytest.param(2000, 180, 2, 10, marks=pytest.mark.long)],
)
def test_stopped_again_and_again(
    mortal: OwnServer,
    mortal_business: Business,
    mortal_workers: Workers,
    tmp_path: Path,
    record: Recorder,
    seed: int,
    plans: int,
    seconds: float,
    shortest: float,
    longest: float,
) -> None:
    stops, lost, wrong = flow(
        mortal, mortal_business, mortal_workers, tmp_path, plans, seconds, shortest, longest
    )
    record(
        fault=2,
        points=stops,
        violations=len(wrong),
        seed=seed,
        what=f"PostgreSQL stopped every {shortest:g} to {longest:g} s (immediately, orderly, or one"
        f" of its processes killed) for {seconds:g} s while {plans:,} plans flow; {lost} runs cut"
        " off",
    )
    assert wrong == []
    assert stops >= seconds / (longest + 20)
