"""Quality checks: what customer success finds wrong is followed up, and blocks nothing else."""

from collections.abc import Callable
from datetime import date

import pytest
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.people.conftest import sql_as
from tests.world import World, context


@pytest.fixture
def care(world: World, person: Callable[[World, str], str]) -> str:
    return person(world, "customer_success")


@pytest.fixture
def plan(world: World) -> int:
    """An active plan with an add-on, and its quality check."""
    world.tax_rate("0.0725")
    addon = world.addon("2.00")
    subscription = world.subscription(
        world.customer(), world.plan(), started_on=date(2026, 10, 2), addons=(addon,)
    )
    world.term(subscription, date(2026, 10, 2), date(2026, 11, 2))
    (plan,) = world.open()
    world.pay_and_approve(plan)
    world.settle()
    return plan


def close(world: World) -> dict[str, int]:
    return steps.close_quality_checks(world.engine, context())


def tasks(world: World, plan: int) -> list[tuple[str, str, str | None, bool]]:
    return world.rows(
        "SELECT kind, status, decision, closed_at IS NOT NULL FROM prepaid.tasks"
        " WHERE service_plan_id = :p AND kind LIKE 'quality%' ORDER BY task_id",
        p=plan,
    )


def test_the_table_shows_what_to_look_at(world: World, plan: int, care: str) -> None:
    assert sql_as(
        world,
        care,
        "SELECT kind, status, service_plan_id, features, what_failed FROM prepaid.quality_checks",
    ) == [("quality_check", "Open", plan, "Plan 3, Add-on 1", None)]


def test_passed_closes(world: World, plan: int, care: str) -> None:
    assert close(world) == {"passed": 0, "failed": 0}
    assert sql_as(world, care, "UPDATE prepaid.quality_checks SET decision = 'passed'") == 1
    assert close(world) == {"passed": 1, "failed": 0}
    assert tasks(world, plan) == [("quality_check", "Done", "passed", True)]
    assert world.holds(plan) == []
    assert close(world) == {"passed": 0, "failed": 0}


def test_failed_is_held_and_followed_up_until_it_passes(world: World, plan: int, care: str) -> None:
    decisions.decide(
        world.engine, care, [world.task(plan, "quality_check")], "reject", "login fails"
    )
    assert world.holds(plan) == []  # the job acts on it
    assert close(world) == {"passed": 0, "failed": 1}
    assert world.holds(plan) == ["quality_failed"]
    (text,) = world.rows("SELECT text FROM prepaid.holds")[0]
    assert "login fails" in text
    assert "follow-up" in text
    assert world.status(plan) == "Active"
    follow_up = world.task(plan, "quality_follow_up")
    assert sql_as(
        world,
        care,
        "SELECT task_id, what_failed FROM prepaid.quality_checks WHERE status = 'Open'",
    ) == [(follow_up, "login fails")]

    # It fails once more: one hold still, and a follow-up of the follow-up.
    decisions.decide(world.engine, care, [follow_up], "reject", "still no login")
    assert close(world) == {"passed": 0, "failed": 1}
    assert world.holds(plan) == ["quality_failed"]
    assert world.task(plan, "quality_follow_up") > follow_up

    decisions.decide(
        world.engine, care, [world.task(plan, "quality_follow_up")], "approve", "works"
    )
    assert close(world) == {"passed": 1, "failed": 0}
    assert world.holds(plan) == []
    assert world.rows("SELECT released_by, note FROM prepaid.holds") == [
        (care, "the follow-up passed")
    ]
    assert tasks(world, plan) == [
        ("quality_check", "Done", "failed", True),
        ("quality_follow_up", "Done", "failed", True),
        ("quality_follow_up", "Done", "passed", True),
    ]


def test_until_the_job_acts_the_decision_can_be_corrected(
    world: World, plan: int, care: str
) -> None:
    task = world.task(plan, "quality_check")
    decisions.decide(world.engine, care, [task], "reject", "wrong customer, sorry")
    decisions.decide(world.engine, care, [task], "approve", None)
    assert close(world) == {"passed": 1, "failed": 0}
    assert world.holds(plan) == []
    assert world.rows(
        "SELECT decision FROM prepaid.sign_offs WHERE task_id = :t ORDER BY sign_off_id", t=task
    ) == [("failed",), ("passed",)]


def test_closed_tasks_stay(world: World, plan: int, care: str) -> None:
    task = world.task(plan, "quality_check")
    decisions.decide(world.engine, care, [task], "approve", None)
    close(world)
    with pytest.raises(NotAllowed, match=f"task {task} cannot be decided: it is closed"):
        decisions.decide(world.engine, care, [task], "reject", "found something")
    with pytest.raises(DBAPIError, match="it is closed; use its follow-up task"):
        sql_as(world, care, "UPDATE prepaid.quality_checks SET decision = 'failed', note = 'x'")
    assert tasks(world, plan) == [("quality_check", "Done", "passed", True)]


def test_the_next_renewal_is_not_blocked(world: World, plan: int, care: str) -> None:
    decisions.decide(world.engine, care, [world.task(plan, "quality_check")], "reject", "no login")
    close(world)
    december = context(date(2026, 12, 1))
    renewal = world.open(december)[-1]
    assert renewal != plan
    assert world.holds(renewal) == []
    world.record(world.invoice(renewal))
    world.match(december)
    world.approve(renewal)
    world.settle(december)
    assert world.status(renewal) == "Active"
    assert steps.expire_service_plans(world.engine, context(date(2026, 12, 2))) == 2
    assert world.status(plan) == "Expired"
    assert world.holds(plan) == ["quality_failed"]


def test_payment_words_are_refused(world: World, plan: int, care: str) -> None:
    with pytest.raises(DBAPIError, match="the decision must be passed or failed, not 'approved'"):
        sql_as(world, care, "UPDATE prepaid.quality_checks SET decision = 'approved'")
    with pytest.raises(DBAPIError, match="failed needs a note that says why"):
        sql_as(world, care, "UPDATE prepaid.quality_checks SET decision = 'failed'")
    with pytest.raises(DBAPIError, match="only decision and note can be set in quality_checks"):
        world.sql("UPDATE prepaid.quality_checks SET decision = 'passed', features = 'none'")
