"""Fault 4: two daemons, four workers and two senders of mails on the same 200 plans: one effect."""

import time
from pathlib import Path

import pytest

from tests.faults.business import Business
from tests.faults.clients import Clients
from tests.faults.recorder import Recorder
from tests.faults.workers import Workers

pytestmark = pytest.mark.fault
PLANS = 200
_PATIENCE_SECONDS = 180


def left(business: Business) -> int:
    """What is not done yet: plans that are not settled, mails that are not sent."""
    return int(
        business.world.sql(
            "SELECT (SELECT count(*) FROM prepaid.unsettled_plans u WHERE NOT EXISTS ("
            " SELECT FROM prepaid.holds h WHERE h.service_plan_id = u.service_plan_id))"
            " + (SELECT count(*) FROM prepaid.emails WHERE status <> 'sent')"
        )
    )


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_one_effect_each(
    business: Business, workers: Workers, record: Recorder, tmp_path: Path, rounds: int
) -> None:
    wrong, deadlocks = list[str](), 0
    for number in range(rounds):
        business.add(PLANS // 4)
        job = {"size": 7, "lease": 600, "stop": str(tmp_path / f"stop-{number}")}
        kinds = ["daemon"] * 2 + ["worker"] * 4 + ["sender"] * 2
        running = [workers.start(work=kind, **job) for kind in kinds]
        begun, give_up_at = time.monotonic(), time.monotonic() + _PATIENCE_SECONDS
        with Clients(business, 0, pause=0.1) as clients:
            while time.monotonic() < give_up_at and (
                left(business) or time.monotonic() < begun + 2
            ):
                time.sleep(0.2)
        Path(job["stop"]).touch()
        deadlocks += sum(workers.wait(pid).said["deadlocks"] for pid in running)
        wrong += [f"not done after {_PATIENCE_SECONDS} s"] * (left(business) > 0)
        wrong += [f"a client failed: {error}" for error in clients.failed]
        business.finish()
        wrong += business.wrong()
    record(
        fault=4,
        points=rounds,
        violations=len(wrong),
        what=f"two daemons, four workers, two senders at once on the same {PLANS} plans, no mail"
        f" twice; {deadlocks} runs ended by a deadlock and repeated",
    )
    assert wrong == []
