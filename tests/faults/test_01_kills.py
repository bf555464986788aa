"""Fault 1: the worker and its session killed at every moment of the steps 0-11 and of the mails."""

import itertools
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.settings import Settings
from tests.faults.business import Business
from tests.faults.recorder import Recorder
from tests.faults.sink import Sink
from tests.faults.stages import OPENING, SETTLING
from tests.faults.workers import Workers

pytestmark = pytest.mark.fault
_PARTS = {"steps 0-5 and matching": OPENING, "decisions, steps 6-11 and mails": SETTLING}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def business(engine: Engine, settings: Settings, sink: Sink) -> Business:
    business = Business(engine, settings, sink)
    business.open_for_business()
    return business


@pytest.fixture
def workers(business: Business, tmp_path: Path) -> Iterator[Workers]:
    url = business.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    common = {"url": url, "admin_url": url, "home": str(tmp_path), "smtp": business.sink.url}
    with Workers(tmp_path / "workers.log", **common) as workers:
        workers.warm_up()
        yield workers


def strike_everywhere(workers: Workers, jobs: Iterator[dict[str, object]], strike: str) -> int:
    """One worker after the other is struck one moment later, until one survives; how many were."""
    for point in itertools.count(1):
        ended = workers.run(**next(jobs), point=point, strike=strike)
        if strike == "kill" and ended.signal == signal.SIGKILL:
            continue
        if not ended.struck:
            return point - 1
    raise AssertionError


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
        fault=1, points=points.total(), violations=len(wrong),
        what="SIGKILL of the worker, and `pg_terminate_backend` of its session, before and after"
        f" every statement, commit and mail: {part}",
    )  # fmt: skip
    assert wrong == []
    # The claim has fewest: two statements, what tells the audit log who it is, the commit, the end.
    assert all(count >= 5 for count in points.values()), points
