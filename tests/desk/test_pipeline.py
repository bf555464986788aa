"""What is decided at the desk is seen by the pipeline's next look, at most 30 seconds later."""

import re
from collections.abc import Callable
from typing import Any

import dagster as dg

from prepaid_pipeline.process import steps
from tests.desk.conftest import Browser
from tests.desk.many import payments
from tests.orchestration.conftest import evaluate, instance, location
from tests.world import World, context

__all__ = ["evaluate", "instance", "location"]
SECONDS = 30


def test_seen_within_one_interval_of_the_sensor(
    world: World,
    browser: Callable[..., Browser],
    evaluate: Callable[[str], Any],
    location: dg.RepositoryDefinition,
) -> None:
    assert location.get_sensor_def("sign_offs").minimum_interval_seconds == SECONDS
    plans = payments(world, 3)
    assert evaluate("sign_offs").run_requests == []
    finance, care = browser("finance"), browser("customer_success")
    page = finance.get("/payments/confirm?all=yes").text
    (pairs,) = re.findall(r'name="tasks" value="([^"]+)"', page)
    finance.post("/payments/approve", tasks=pairs)
    asked = evaluate("sign_offs").run_requests
    assert [request.job_name for request in asked] == ["settle_renewals"]

    world.settle()
    assert [world.status(plan) for plan in plans] == ["Active"] * 3
    assert evaluate("sign_offs").run_requests == []
    check = world.task(plans[0], "quality_check")
    care.get(f"/quality/{check}")
    care.post(f"/quality/{check}/decide", decision="failed", note="answers 404", seen="0")
    asked = evaluate("sign_offs").run_requests
    assert [request.job_name for request in asked] == ["close_quality_checks"]
    steps.close_quality_checks(world.engine, context())
    assert world.holds(plans[0]) == ["quality_failed"]
