"""What the pages show: each team its own, and what can be done about it."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from prepaid_pipeline.people import decisions
from tests.people.conftest import sql_as
from tests.world import TODAY, World

Person = Callable[[World, str], str]


@pytest.fixture
def busy(world: World) -> World:
    """One payment that waits, one that is parked, one plan that is rejected, one quality check."""
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    first, second, _ = world.open()
    world.record(world.invoice(second))
    world.record(world.invoice(first) + "x", customer_ref="C1", amount="10.73")
    world.match()
    world.approve(first, word="reject", note="blocked account")
    world.approve(second)
    world.settle()
    return world


def test_the_overview_is_of_ones_own_team(busy: World, person: Person) -> None:
    ask = "SELECT kind, open, oldest, overdue, mine FROM prepaid.desk_overview ORDER BY kind"
    ann, care = person(busy, "finance"), person(busy, "customer_success")
    task = busy.sql(
        "SELECT min(task_id) FROM prepaid.tasks"
        " WHERE kind = 'payment_verification' AND status = 'Open'"
    )
    decisions.reassign(busy.engine, ann, [task], ann, None)
    busy.sql("UPDATE prepaid.tasks SET due_on = CURRENT_DATE - 1 WHERE task_id = :t", t=task)
    quality = ("quality_check", 1, TODAY, busy.sql("SELECT (CURRENT_DATE > '2026-11-05')::int"), 0)
    review = ("payment_review", 1, TODAY, quality[3], 0)
    verification = ("payment_verification", 1, TODAY, 1, 1)
    assert sql_as(busy, ann, ask) == [review, verification]
    assert sql_as(busy, care, ask) == [quality]
    engineer = sql_as(busy, person(busy, "engineering"), ask)
    assert engineer == [review, (*verification[:4], 0), quality]


def test_parked_payments_with_suggestions(busy: World, person: Person) -> None:
    ((reason, what_to_do, suggestions),) = sql_as(
        busy,
        person(busy, "finance"),
        "SELECT reason, what_to_do, suggestions FROM prepaid.parked_payments WHERE status = 'Open'",
    )
    assert "there is no invoice" in reason
    assert what_to_do.startswith("assign it to the open invoice that it pays")
    known = {invoice for (invoice,) in busy.rows("SELECT invoice_number FROM prepaid.invoices")}
    assert {found["invoice_number"] for found in suggestions} <= known


def test_held_plans_say_who_can_release(busy: World, person: Person) -> None:
    ask = "SELECT reason_code, released_by_team FROM prepaid.held_plans"
    for team in ("finance", "customer_success", "engineering"):
        assert sql_as(busy, person(busy, team), ask) == [("payment_rejected", "finance")]


def test_decisions_are_of_ones_own_team(busy: World, person: Person) -> None:
    ask = "SELECT kind, decision, note FROM prepaid.decisions ORDER BY sign_off_id"
    payments = [
        ("payment_verification", "rejected", "blocked account"),
        ("payment_verification", "approved", None),
    ]
    assert sql_as(busy, person(busy, "finance"), ask) == payments
    assert sql_as(busy, person(busy, "customer_success"), ask) == []
    assert sql_as(busy, person(busy, "engineering"), ask) == payments


def test_how_long_sign_offs_take(busy: World, person: Person) -> None:
    """Median and 90th percentile of 1, 2 … 10 hours: 5.5 and 9.1 (linear interpolation)."""
    busy.sql("ALTER TABLE prepaid.tasks DISABLE TRIGGER USER")
    busy.sql(
        "INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on,"
        " status, decision, opened_at, decided_at, decided_by) SELECT 'quality_follow_up',"
        " (SELECT min(service_plan_id) FROM prepaid.service_plans), 'customer_success',"
        " '2026-10-01', '2026-10-04', 'Done', 'passed', TIMESTAMPTZ '2026-10-01 00:00Z',"
        " TIMESTAMPTZ '2026-10-01 00:00Z' + n * interval '1 hour', 'x'"
        " FROM generate_series(1, 10) n"
    )
    ask = (
        "SELECT month, decided, median, p90 FROM prepaid.sign_off_times"
        " WHERE kind = 'quality_follow_up'"
    )
    hours = timedelta(hours=5, minutes=30), timedelta(hours=9, minutes=6)
    assert sql_as(busy, person(busy, "customer_success"), ask) == [(date(2026, 10, 1), 10, *hours)]


def test_the_story_of_one_plan(busy: World, person: Person) -> None:
    plan = busy.plans()[1]
    ask = "SELECT event FROM prepaid.plan_events WHERE service_plan_id = :p ORDER BY at, place, id"
    for team in ("finance", "customer_success", "engineering"):
        told = [row[0] for row in sql_as(busy, person(busy, team), ask, p=plan)]
        assert told[0] == "service_plan_opened"
        assert {"sign_off", "service_provisioned", "email_ordered"} <= set(told)
        assert ("payment_record" in told) is (team != "customer_success")
        ((status, paid),) = sql_as(
            busy,
            person(busy, team),
            "SELECT status, invoice_status FROM prepaid.plan_summaries WHERE service_plan_id = :p",
            p=plan,
        )
        assert (status, paid) == ("Active", "Paid")
