"""Two workers, a payment, a decision, a kill, all at the same moment."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import pytest
from sqlalchemy import text

from prepaid_pipeline.billing import dunning, payment_matching
from prepaid_pipeline.database import queries
from prepaid_pipeline.database.connections import acting_as, transaction
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from tests import budget
from tests.billing.dunning.conftest import day, dun, mails, unpaid
from tests.world import World

LAST_DAY, CANCELLING = 30, 31


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    module_world.tax_rate("0.0725")
    return module_world


def at_once(*things: Callable[[], Any]) -> list[Any]:
    barrier = Barrier(len(things))

    def one(thing: Callable[[], Any]) -> Any:
        barrier.wait(timeout=10)
        try:
            return thing()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(one, things))


def sound(world: World) -> None:
    results = invariants.run(world.engine, day(CANCELLING))
    assert [finding for result in results for finding in result.findings] == []


def wait_until_somebody_waits(world: World, number: int = 1) -> None:
    """Until sessions of this database wait for a lock."""
    for _ in range(1000):
        if number <= world.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ):
            return
        sleep(0.01)
    raise AssertionError("nobody waits")


def test_several_workers_remind_once(world: World) -> None:
    """Also with different business dates: the day that was reached is asked for under the lock."""
    plans = unpaid(world, 12)
    at_once(
        *(
            lambda n=n: dunning.remind_unpaid(world.engine, day(n, batch_size=5))
            for n in (3, 3, 7, 7, 14, 14)
        )
    )
    for plan in plans:
        ordered = [int(mail.split()[-1]) for mail in mails(world, plan)]
        assert ordered == sorted(set(ordered))
        assert ordered[-1] == 14


def test_several_workers_cancel_once(world: World) -> None:
    plans = unpaid(world, 12)
    counts = at_once(
        *[lambda: dunning.cancel_unpaid(world.engine, day(CANCELLING, batch_size=5))] * 4
    )
    assert sum(counts) >= len(plans)
    assert len(mails(world, *plans, template="unpaid_cancellation")) == len(plans)
    once = ("invoice_void", "payment_not_received", "service_plan_cancelled")
    assert world.rows(
        "SELECT event, count(*) FROM prepaid.audit_log WHERE service_plan_id = ANY (:plans)"
        " AND event IN ('payment_not_received', 'service_plan_cancelled', 'invoice_void')"
        " GROUP BY event ORDER BY event",
        plans=plans,
    ) == [(event, len(plans)) for event in once]
    sound(world)


def test_payments_arrive_while_plans_are_cancelled(world: World) -> None:
    """Each plan is either cancelled with its record parked, or its record is matched."""
    for _ in range(budget.rounds(4)):
        plans = unpaid(world, 6)
        numbers = [world.invoice(plan) for plan in plans]
        total = world.sql("SELECT max(total) FROM prepaid.invoices")

        def pay(numbers: list[str] = numbers, total: object = total) -> None:
            for number in numbers:
                world.record(number, str(total))
                world.match(day(CANCELLING))

        raised = at_once(
            pay,
            lambda: [dunning.cancel_unpaid(world.engine, day(CANCELLING)) for _ in range(6)],
        )
        assert not [error for error in raised if isinstance(error, Exception)]
        dunning.cancel_unpaid(world.engine, day(CANCELLING))
        for plan, number in zip(plans, numbers, strict=True):
            (outcome, tasks) = world.rows(
                "SELECT t.outcome, (SELECT count(*) FROM prepaid.tasks k WHERE k.kind ="
                " 'payment_review' AND k.transaction_id = t.transaction_id AND k.status = 'Open')"
                " FROM prepaid.transactions t WHERE invoice_number = :n",
                n=number,
            )[0]
            expected = {"Pending": ("matched", 0), "Cancelled": ("parked", 1)}[world.status(plan)]
            assert (outcome, tasks) == expected
        sound(world)


def test_a_record_that_is_being_matched_wins(world: World) -> None:
    """The closest it can be: matched and not committed, while the plan is to be cancelled."""
    (plan,) = unpaid(world)
    world.record(world.invoice(plan))
    with ThreadPoolExecutor(1) as pool:
        with transaction(world.engine, actor="match_payments", as_of=day(0).as_of) as connection:
            payment_matching.match_batch(connection, day(0).parameters())
            cancelling = pool.submit(dunning.cancel_unpaid, world.engine, day(CANCELLING))
            wait_until_somebody_waits(world)
        assert cancelling.result(timeout=20) == 0
    assert world.status(plan) == "Pending"
    world.approve(plan)
    world.settle(day(CANCELLING))
    assert world.status(plan) == "Active"


def test_a_record_that_lands_while_the_plan_is_cancelled_is_parked(world: World) -> None:
    (plan,) = unpaid(world)
    number, total = world.rows(
        "SELECT invoice_number, total FROM prepaid.invoices WHERE service_plan_id = :p", p=plan
    )[0]
    lock, *cancel = (
        queries.statement("billing/dunning", part)
        for part in ("lock_overdue", "tell", "close", "cancel")
    )
    params = day(CANCELLING).parameters()
    with ThreadPoolExecutor(1) as pool:
        with transaction(world.engine, actor="dun", as_of=day(CANCELLING).as_of) as connection:
            payment_matching.one_at_a_time(connection)
            params["plans"] = lock.execute(connection, params).one().plans
            assert [part.execute(connection, params).rowcount for part in cancel] == [1, 1, 1]
            record = world.record(number, str(total))
            matching = pool.submit(world.match, day(CANCELLING))
            wait_until_somebody_waits(world)
        assert matching.result(timeout=20)["parked"] == 1
    assert world.status(plan) == "Cancelled"
    assert world.rows(
        "SELECT status FROM prepaid.tasks WHERE kind = 'payment_review' AND transaction_id = :t",
        t=record,
    ) == [("Open",)]
    sound(world)


def test_a_decision_at_that_moment_is_waited_for(world: World) -> None:
    """Finance rejects: the plan is theirs, not cancelled."""
    officer = world.officer()
    (plan,) = unpaid(world)
    with ThreadPoolExecutor(1) as pool:
        with acting_as(world.engine, officer) as connection:
            connection.execute(
                text("SELECT prepaid.decide_tasks(ARRAY[:t], 'rejected', 'seen')"),
                {"t": world.task(plan)},
            )
            cancelling = pool.submit(dunning.cancel_unpaid, world.engine, day(CANCELLING))
            wait_until_somebody_waits(world)
        assert cancelling.result(timeout=20) == 0
    assert world.status(plan) == "Pending"
    assert world.holds(plan) == ["payment_rejected"]


def test_a_decision_that_comes_after_the_cancellation_is_refused(world: World) -> None:
    officer = world.officer()
    for _ in range(budget.rounds(5)):
        (plan,) = unpaid(world)
        task = world.task(plan)
        cancelled, decided = at_once(
            lambda: dunning.cancel_unpaid(world.engine, day(CANCELLING)),
            lambda task=task: decisions.decide(world.engine, officer, [task], "reject", "late"),
        )
        if cancelled:
            assert world.status(plan) == "Cancelled"
            assert "it was withdrawn" in str(decided)
        else:
            assert (world.status(plan), decided) == ("Pending", 1)
    sound(world)


def test_what_somebody_else_works_on_is_left_to_the_next_run(world: World) -> None:
    first, second = unpaid(world, 2)
    with world.engine.begin() as connection:
        connection.execute(
            text("SELECT FROM prepaid.service_plans WHERE service_plan_id = :p FOR UPDATE"),
            {"p": first},
        )
        with ThreadPoolExecutor(1) as pool:
            cancelling = pool.submit(dunning.cancel_unpaid, world.engine, day(CANCELLING))
            try:
                assert cancelling.result(timeout=20) >= 1
            finally:
                connection.rollback()
    assert [world.status(plan) for plan in (first, second)] == ["Pending", "Cancelled"]
    assert dunning.cancel_unpaid(world.engine, day(CANCELLING)) == 1


_DYING = """
import os, signal, sys
from sqlalchemy import event, make_url
from prepaid_pipeline.billing import dunning
from prepaid_pipeline.database import connections
from tests.billing.dunning.conftest import day
engine = connections.engine_for(make_url(sys.argv[1]))
work = getattr(dunning, sys.argv[2])
fatal = int(sys.argv[4])
seen = 0
def die(*_):
    global seen
    seen += 1
    if seen == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "commit":
    event.listen(engine, "commit", die)
else:
    event.listen(engine, "after_cursor_execute", die)
work(engine, day(31 if work is dunning.cancel_unpaid else 14))
"""


@pytest.mark.parametrize(
    ("work", "moment", "fatal"),
    [
        ("remind_unpaid", "commit", 1),
        pytest.param("remind_unpaid", "statement", 3, marks=pytest.mark.long),
        pytest.param("cancel_unpaid", "commit", 1, marks=pytest.mark.long),
        pytest.param("cancel_unpaid", "statement", 5, marks=pytest.mark.long),
        ("cancel_unpaid", "statement", 6),
        pytest.param("cancel_unpaid", "statement", 7, marks=pytest.mark.long),
    ],
)
def test_a_killed_worker_leaves_all_or_nothing(
    world: World, work: str, moment: str, fatal: int
) -> None:
    """Before the commit, and right after the statement that writes; the next run does it, once."""
    plans = unpaid(world, 3)
    url = world.engine.url.render_as_string(hide_password=False)
    worker = subprocess.run(
        [sys.executable, "-c", _DYING, url, work, moment, str(fatal)],
        cwd=Path(__file__).parents[3],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode == -signal.SIGKILL, worker.stderr
    assert mails(world, *plans) == []
    assert {world.status(plan) for plan in plans} == {"Pending"}
    if work == "remind_unpaid":
        assert dun(world, 14)[0] >= 3
        assert len(mails(world, *plans)) == 3
    else:
        assert dun(world, CANCELLING)[1] >= 3
        assert {world.status(plan) for plan in plans} == {"Cancelled"}
        assert len(mails(world, *plans, template="unpaid_cancellation")) == 3
    payment_matching.match_payments(world.engine, day(LAST_DAY))
    sound(world)
