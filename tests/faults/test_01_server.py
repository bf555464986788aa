"""Fault 1: the database server dies in the middle of a worker's work, and after a decision."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.app import build
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.settings.desk import load
from tests.desk.conftest import PASSWORD, Browser
from tests.desk.test_forms import decide
from tests.faults.business import Business
from tests.faults.recorder import Recorder
from tests.faults.servers import OwnServer, runs
from tests.faults.stages import OPENING, SETTLING, Stage
from tests.faults.workers import Workers
from tests.world import TODAY

pytestmark = pytest.mark.fault
_STRIKES = ("stop", "crash")
_WHAT = "immediate stop of PostgreSQL and SIGKILL of its backend"


def struck(
    server: OwnServer, workers: Workers, job: dict[str, object], point: int, strike: str
) -> bool:
    """Let a worker work until the server dies at ``point``; start it again. False if it did not.

    At once, not when the worker has ended: a sender of mails waits for the server to come back, so
    that it can note what it has sent.
    """
    worker = workers.start(**job, point=point, strike=strike, postmaster=server.postmaster())
    while runs(worker):
        if not server.runs():
            server.start()
        time.sleep(0.01)
    ended = workers.wait(worker)
    if ended.struck:
        server.start()
    return bool(ended.struck)


def test_the_server_dies_at_ten_moments(
    mortal: OwnServer,
    mortal_business: Business,
    mortal_workers: Workers,
    record: Recorder,
    seed: int,
) -> None:
    wrong, points = list[str](), 0
    for strike in _STRIKES * 5:
        stage = random.choice((*OPENING, *SETTLING))
        jobs = replace(stage, groups=3).jobs(mortal_business)
        moments = mortal_workers.run(**next(jobs)).moments
        point = random.randint(1, moments)
        points += struck(mortal, mortal_workers, next(jobs), point, strike)
        mortal_business.finish()
        wrong += [f"{stage.name}, {point}, {strike}: {found}" for found in mortal_business.wrong()]
    record(
        fault=1, what=f"{_WHAT}: at random moments", points=points, violations=len(wrong), seed=seed
    )
    assert wrong == []
    assert points == 10


@pytest.mark.long
@pytest.mark.parametrize("stage", [*OPENING, *SETTLING], ids=lambda stage: stage.name)
def test_the_server_dies_at_every_moment(
    mortal: OwnServer,
    mortal_business: Business,
    mortal_workers: Workers,
    record: Recorder,
    stage: Stage,
) -> None:
    points, jobs = 0, stage.jobs(mortal_business)
    for strike in _STRIKES:
        for point, job in enumerate(jobs):
            if not struck(mortal, mortal_workers, job, point + 1, strike):
                points += point
                break
        else:
            raise AssertionError("the stage has more moments than groups: give it more (stages.py)")
    mortal_business.finish()
    wrong = mortal_business.wrong()
    record(
        fault=1,
        what=f"{_WHAT}: at every moment of: {stage.name.replace('_', ' ')}",
        points=points,
        violations=len(wrong),
    )
    assert wrong == []
    assert points > 0


@pytest.fixture
def page(mortal_business: Business) -> Iterator[Browser]:
    """The sign-off desk, with a finance officer signed in."""
    business, desk = mortal_business, load({"PREPAID_DESK_URL": "http://127.0.0.1:3001"})
    hashed = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    accounts.set_password(business.engine, "faults_clerk", hashed)
    engine = connections.engine_for(own_login(business.settings, desk))
    browser = Browser(
        TestClient(build(engine, business.settings, desk), base_url="http://127.0.0.1:3001")
    )
    browser.sign_in("faults_clerk")
    yield browser
    engine.dispose()


def test_a_confirmed_decision_is_stored(
    mortal: OwnServer, mortal_business: Business, page: Browser, record: Recorder
) -> None:
    business = mortal_business
    business.add(3, (0, 2))
    business.invoice()
    business.pay()
    business.world.match()
    tasks = business.do("undecided", kind="payment_verification", limit=6)
    lost = 0
    for number, task in enumerate(tasks):
        if number % 2:
            decisions.decide(business.engine, "faults_clerk", [task], "approve", None, TODAY)
        else:
            assert decide(page, task, "approved").startswith("Done.")
        mortal.stop()
        mortal.start()
        stored = business.world.rows(
            "SELECT decision, decided_by FROM prepaid.sign_offs WHERE task_id = :task", task=task
        )
        lost += stored != [("approved", "faults_clerk")]
    business.finish()
    wrong = business.wrong()
    record(
        fault=1,
        points=len(tasks),
        violations=lost + len(wrong),
        what="immediate stop of PostgreSQL right after a decision was confirmed, by the page or by"
        " the command",
    )
    assert (lost, wrong) == (0, [])
    assert len(tasks) == 6
