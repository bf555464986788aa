"""The sensors of the real definitions on a real database and an instance of their own.

They look at state: nothing new, new, under way, failed, succeeded after a failure.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings
from tests.world import TODAY, World

LOOKING = ("purchases", "payment_records", "sign_offs", "outbox", "unsealed_entries")
# Sensor -> the job that it asks for, and what it calls the work.
JOB = {
    "purchases": ("open_renewals", "purchases"),
    "payment_records": ("match_payments", "payment records"),
    "sign_offs": ("settle_renewals", "plans ready to settle"),
    "outbox": ("send_emails", "mails"),
    "unsealed_entries": ("seal_audit_log", "unsealed audit entries"),
}
Status = dg.DagsterRunStatus
Tick = Callable[[str], list[str] | str]


@pytest.fixture
def tick(evaluate: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Tick:
    """What the daemon gets: the names of the jobs asked for, or the reason for asking for none."""
    monkeypatch.setattr(Settings, "today", lambda _: TODAY)

    def tick(name: str) -> list[str] | str:
        data = evaluate(name)
        assert not data.cursor
        if not data.run_requests:
            return data.skip_message or ""
        assert all(request.run_key is None for request in data.run_requests)
        return [request.job_name or "" for request in data.run_requests]

    return tick


def give_work(world: World, sensor: str) -> None:
    """The least that makes a sensor ask."""
    if sensor == "unsealed_entries":
        # One of now is a batch's to seal.
        world.sql(
            "INSERT INTO prepaid.audit_log (event, entity, actor, at)"
            " SELECT 'x', 'y', 'z', clock_timestamp() - make_interval(mins => n)"
            " FROM (VALUES (0), (6)) v (n)"
        )
        return
    world.tax_rate("0.0725")
    if sensor == "purchases":
        world.subscription(world.customer(), world.plan())
        return
    world.due_renewal()
    (plan,) = world.open()
    world.record(world.invoice(plan))
    if sensor == "payment_records":
        return
    world.match()
    world.approve(plan)
    if sensor == "outbox":
        world.settle()


def add_run(
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    job: str,
    status: dg.DagsterRunStatus,
    minutes_ago: float = 0,
) -> str:
    """A run as the daemon would have left it, with the tags of the real job."""
    definition = location.get_job(job)
    # Only what came through the queue can be in it: the run says from which code location.
    code = RegisteredCodeLocationOrigin("prepaid_pipeline")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(code, location.name), job)
    run = instance.create_run_for_job(
        definition,
        status=Status.NOT_STARTED,
        tags=dict(definition.run_tags),
        remote_job_origin=origin,
    )
    events = {
        Status.QUEUED: "PIPELINE_ENQUEUED",
        Status.STARTED: "PIPELINE_START",
        Status.CANCELING: "PIPELINE_CANCELING",
        Status.CANCELED: "PIPELINE_CANCELED",
        Status.FAILURE: "PIPELINE_FAILURE",
        Status.SUCCESS: "PIPELINE_SUCCESS",
    }
    if status in events:
        instance.run_storage.handle_run_event(
            run.run_id,
            dg.DagsterEvent(event_type_value=events[status], job_name=job),
            datetime.now(UTC) - timedelta(minutes=minutes_ago),
        )
    return run.run_id


@pytest.mark.parametrize("sensor", LOOKING)
def test_a_sensor_looks_at_state_and_writes_nothing(
    world: World,
    tick: Tick,
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    sensor: str,
) -> None:
    job, what = JOB[sensor]
    reason = tick(sensor)
    assert isinstance(reason, str)
    assert f"no {what}" in reason

    give_work(world, sensor)
    before = world.dump()
    assert tick(sensor) == [job]
    # Level-triggered: as long as nobody did it, it is asked for again.
    assert tick(sensor) == [job]
    assert world.dump() == before
    assert world.rows("SELECT * FROM prepaid.batches WHERE finished_at IS NULL") == []

    run_id = add_run(location, instance, job, Status.STARTED)
    reason = tick(sensor)
    assert f"{what} waiting; run {run_id} of {job} is in progress" in reason


@pytest.fixture
def purchase(world: World) -> World:
    give_work(world, "purchases")
    return world


@pytest.mark.usefixtures("purchase")
def test_back_off_after_failures(
    tick: Tick, location: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> None:
    """2 minutes after the first failure, doubled with each further one, at most 60."""

    def fail(minutes_ago: float) -> None:
        add_run(location, instance, "open_renewals", Status.FAILURE, minutes_ago)

    def waits() -> bool:
        answer = tick("purchases")
        if isinstance(answer, list):
            return False
        assert re.fullmatch(
            r"purchases waiting; open_renewals has failed, next attempt at \d\d:\d\d:\d\d UTC",
            answer,
        )
        return True

    fail(minutes_ago=500)
    assert not waits()
    fail(minutes_ago=3.9)
    assert waits()  # the second in a row: 4 minutes
    fail(minutes_ago=4.1)
    assert waits()  # the third: 8 minutes
    fail(minutes_ago=15.9)
    assert waits()  # the fourth: 16
    fail(minutes_ago=16.1)
    assert waits()  # the fifth: 32
    fail(minutes_ago=59.9)
    assert waits()  # the sixth: 60, and so for all that follow
    fail(minutes_ago=60.1)
    assert not waits()
    fail(minutes_ago=59.9)
    assert waits()

    add_run(location, instance, "open_renewals", Status.SUCCESS)
    assert not waits()
    fail(minutes_ago=2.1)
    assert not waits()  # the first since a success: 2 minutes
    add_run(location, instance, "open_renewals", Status.SUCCESS)
    fail(minutes_ago=1.9)
    assert waits()


@pytest.mark.usefixtures("purchase")
def test_what_counts_as_under_way(
    tick: Tick, location: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> None:
    # Another queue's run is none of ours; nor is one that a person stopped.
    add_run(location, instance, "settle_renewals", Status.STARTED)
    add_run(location, instance, "settle_renewals", Status.FAILURE)
    add_run(location, instance, "open_renewals", Status.CANCELED)
    assert tick("purchases") == ["open_renewals"]
    for status in (Status.NOT_STARTED, Status.QUEUED, Status.STARTED, Status.CANCELING):
        run_id = add_run(location, instance, "open_renewals", status)
        answer = tick("purchases")
        assert f"run {run_id} of open_renewals is in progress" in answer, status
        instance.delete_run(run_id)
    assert tick("purchases") == ["open_renewals"]


def test_a_run_that_really_failed_makes_its_sensor_wait(
    world: World, tick: Tick, location: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> None:
    give_work(world, "purchases")
    broken = {"ops": {"open_service_plans": {"config": {"as_of": "nonsense"}}}}
    job = location.get_job("open_renewals")
    result = job.execute_in_process(broken, instance=instance, raise_on_error=False)
    assert not result.success
    assert "has failed" in tick("purchases")
    assert job.execute_in_process(instance=instance).success
    assert tick("purchases") == "no purchases"


def test_purchases_sees_orders_and_released_plans(world: World, tick: Tick) -> None:
    world.due_renewal()
    assert tick("purchases") == "no purchases"  # renewals are the daily schedule's
    (plan,) = world.open()
    assert world.holds(plan) == ["no_tax_rate"]
    assert tick("purchases") == "no purchases"
    world.tax_rate("0.0725")
    decisions.release(world.engine, world.officer(), plan, "rate imported")
    assert tick("purchases") == ["open_renewals"]
    world.open()
    assert tick("purchases") == "no purchases"

    subscription = world.subscription(world.customer(), world.plan(), auto_renew=False)
    world.term(subscription, TODAY, TODAY.replace(month=12), status="Pending")
    world.sql(
        "UPDATE prepaid.service_plans SET activated_on = NULL WHERE status = 'Pending'"
        " AND subscription_id = :s",
        s=subscription,
    )
    assert tick("purchases") == ["open_renewals"]


def test_sign_offs_asks_for_both_jobs_in_one_tick(
    world: World, tick: Tick, location: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> None:
    give_work(world, "outbox")
    (plan,) = world.open()
    care = world.officer("test_care", "customer_success")
    decisions.decide(world.engine, care, [world.task(plan, "quality_check")], "approve", None)
    assert tick("sign_offs") == ["close_quality_checks"]

    world.due_renewal()
    (_, other) = world.open()
    world.pay_and_approve(other)
    assert tick("sign_offs") == ["settle_renewals", "close_quality_checks"]
    add_run(location, instance, "settle_renewals", Status.STARTED)
    assert tick("sign_offs") == ["close_quality_checks"]


def test_outbox_waits_for_mails_that_wait(world: World, tick: Tick) -> None:
    give_work(world, "outbox")
    world.sql("UPDATE prepaid.emails SET next_attempt_at = clock_timestamp() + interval '1 hour'")
    assert tick("outbox") == "no mails"
    world.sql("UPDATE prepaid.emails SET next_attempt_at = clock_timestamp()")
    assert tick("outbox") == ["send_emails"]
    lease = "UPDATE prepaid.emails SET leased_until = clock_timestamp() + interval '5 minutes'"
    world.sql(lease)
    assert tick("outbox") == "no mails"
