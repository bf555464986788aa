"""What a run that ended had claimed is taken over at once, not when the lease is over."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from prepaid_pipeline.process import steps
from tests.world import World, context


@pytest.fixture
def claimed(world: World) -> str:
    """A run's id whose batch was claimed and left after step 2."""
    world.tax_rate("0.0725")
    world.due_renewal()
    run_id = str(uuid4())
    at = context(run_id=run_id)
    steps.open_service_plans(world.engine, at)
    batch = steps.claim(world.engine, "open_renewals", at)
    assert batch is not None
    for step in list(steps.OPENING_STEPS)[:2]:
        steps.run_step(world.engine, step, batch, at)
    return run_id


def run_job(location: dg.RepositoryDefinition, instance: dg.DagsterInstance) -> None:
    job = location.get_job("open_renewals")
    config = {"ops": {"open_service_plans": {"config": {"as_of": "2026-11-02"}}}}
    assert job.execute_in_process(instance=instance, run_config=config).success


def add_run(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    instance.add_run(dg.DagsterRun(job_name="open_renewals", run_id=run_id, status=status))


def test_an_ended_run_is_taken_over(
    world: World,
    claimed: str,
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    evaluate: Callable[..., Any],
) -> None:
    add_run(instance, claimed, dg.DagsterRunStatus.FAILURE)
    assert len(evaluate("purchases").run_requests) == 1
    run_job(location, instance)
    (plan,) = world.plans()
    assert world.invoice(plan)


def test_a_live_run_is_left_alone(
    world: World,
    claimed: str,
    location: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    evaluate: Callable[..., Any],
) -> None:
    add_run(instance, claimed, dg.DagsterRunStatus.STARTED)
    assert evaluate("purchases").skip_message == "no purchases"
    run_job(location, instance)
    (plan,) = world.plans()
    assert world.invoice(plan) is None
