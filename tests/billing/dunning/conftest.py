"""Invoices that nobody pays: renewals of 2 November 2026, due on that day."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from prepaid_pipeline.billing import dunning
from prepaid_pipeline.context import Context
from tests.world import TODAY, World, context

Dun = Callable[..., tuple[int, int]]
DUE = TODAY


def day(number: int, **other: Any) -> Context:
    """The business date that many days after the invoices were due."""
    return context(DUE + timedelta(days=number), **other)


def unpaid(world: World, plans: int = 1, **customer: Any) -> list[int]:
    """New invoiced renewals that wait for their payment."""
    known = set(world.plans())
    for _ in range(plans):
        world.due_renewal(**customer)
    return [plan for plan in world.open() if plan not in known]


def mails(world: World, *plans: int, template: str = "payment_reminder") -> list[str]:
    """What the mails of a template were ordered for, oldest first; with the status of each."""
    rows = world.rows(
        "SELECT occasion, status FROM prepaid.emails WHERE template = :template"
        " AND service_plan_id = ANY (:plans) ORDER BY email_id",
        template=template,
        plans=list(plans),
    )
    return [
        occasion if status == "pending" else f"{occasion} {status}" for occasion, status in rows
    ]


def dun(world: World, number: int, **other: Any) -> tuple[int, int]:
    """Run the job on that day after the due date; how many were reminded and cancelled."""
    at = day(number, **other)
    return dunning.remind_unpaid(world.engine, at), dunning.cancel_unpaid(world.engine, at)


def invoices(world: World, plan: int) -> list[tuple[str, date]]:
    return world.rows(
        "SELECT status, issued_on FROM prepaid.invoices WHERE service_plan_id = :plan"
        " ORDER BY invoice_id",
        plan=plan,
    )


@pytest.fixture
def taxed(world: World) -> World:
    world.tax_rate("0.0725")
    return world
