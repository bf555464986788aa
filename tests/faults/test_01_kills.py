"""Fault 1: the worker and its session killed at every moment of the steps 0-11 and of the mails."""

import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.business import Business
from tests.faults.recorder import Recorder
from tests.faults.stages import OPENING, SETTLING, Stage
from tests.faults.workers import Workers

pytestmark = pytest.mark.fault
_PARTS = {"steps 0-5 and matching": OPENING, "decisions, steps 6-11 and mails": SETTLING}


def strike_everywhere(workers: Workers, jobs: Iterator[dict[str, object]], strike: str) -> int:
    """One worker after the other is struck one moment later, until one survives; how many were."""
    for point, job in enumerate(jobs):
        ended = workers.run(**job, point=point + 1, strike=strike)
        if ended.signal != signal.SIGKILL and not ended.struck:
            return point
    raise AssertionError("the stage has more moments than groups: give it more (stages.py)")


@pytest.mark.smoke
@pytest.mark.parametrize("strike", ["kill", "terminate"])
def test_killed_in_the_middle_of_a_step(business: Business, workers: Workers, strike: str) -> None:
    jobs = Stage("step mark_invoices_paid", groups=2).jobs(business)
    moments = workers.run(**next(jobs)).moments
    ended = workers.run(**next(jobs), point=moments // 2, strike=strike)
    assert (ended.signal == signal.SIGKILL) == (strike == "kill")
    assert bool(ended.struck) == (strike == "terminate")
    business.finish()
    assert business.wrong() == []


@pytest.mark.parametrize("part", _PARTS)
def test_killed_at_every_moment(
    business: Business, workers: Workers, record: Recorder, part: str
) -> None:
    points, wrong = Counter[str](), []
    for stage in _PARTS[part]:
        jobs = stage.jobs(business)
        for strike in ("kill", "terminate"):
            points[f"{strike}: {stage.name}"] = strike_everywhere(workers, jobs, strike)
        business.finish()
        wrong += [f"{stage.name}: {finding}" for finding in business.wrong()]
    record(
        fault=1,
        points=points.total(),
        violations=len(wrong),
        what="SIGKILL of the worker, and `pg_terminate_backend` of its session, before and after"
        f" every statement, commit and mail: {part}",
    )
    assert wrong == []
    # The claim has fewest: two statements, what tells the audit log who it is, the commit, the end.
    assert all(count >= 5 for count in points.values()), points
