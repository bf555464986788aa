"""What each team may do in the database, tried out; the whole table is in docs/rights.md."""

from collections.abc import Callable

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from tests.people.conftest import sql_as
from tests.world import World

TEAMS = ("finance", "customer_success", "leadership", "engineering")


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    """One invoice that waits, one active plan with its quality check."""
    module_world.tax_rate("0.0725")
    module_world.due_renewal()
    module_world.due_renewal()
    first, second = module_world.open()
    module_world.pay(second)
    module_world.pay_and_approve(first)
    module_world.settle()
    return module_world


@pytest.fixture(scope="module")
def someone(world: World, person: Callable[[World, str], str]) -> dict[str, str]:
    return {team: person(world, team) for team in TEAMS}


@pytest.mark.parametrize(
    ("team", "statement"),
    [
        ("finance", "UPDATE prepaid.tasks SET decision = 'approved', status = 'Done'"),
        ("finance", "UPDATE prepaid.payment_verifications SET total = 0"),
        ("finance", "UPDATE prepaid.payment_verifications SET decided_by = 'somebody'"),
        (
            "finance",
            "INSERT INTO prepaid.sign_offs (task_id, decision, decided_by) SELECT task_id,"
            " 'approved', 'somebody' FROM prepaid.tasks",
        ),
        ("finance", "UPDATE prepaid.invoices SET status = 'Paid'"),
        ("finance", "INSERT INTO prepaid.transactions (status) VALUES ('Success')"),
        ("finance", "SELECT * FROM prepaid.audit_log"),
        ("finance", "UPDATE prepaid.quality_checks SET decision = 'passed'"),
        ("customer_success", "UPDATE prepaid.payment_verifications SET decision = 'approved'"),
        ("customer_success", "SELECT * FROM prepaid.invoices"),
        ("customer_success", "SELECT * FROM revenue.mrr"),
        ("leadership", "SELECT * FROM prepaid.customers"),
        ("leadership", "SELECT prepaid.decide_tasks(ARRAY[1], 'approved')"),
        ("leadership", "DELETE FROM revenue.mrr"),
        ("leadership", "SELECT prepaid.cancel(1, NULL, false, NULL, 'x')"),
        ("customer_success", "SELECT prepaid.void_invoice('INV-2026-000001', false, 'x')"),
        ("customer_success", "SELECT prepaid.cancel_waiting_plan(1, 'x')"),
        ("finance", "SELECT prepaid.cut_active_term(1, '2026-11-02', 'x')"),
        ("finance", "SELECT prepaid.issue_credit_note(1, now()::date, now()::date, 'change', '')"),
        ("engineering", "SELECT prepaid.change_plan(1, 'x', NULL, NULL, NULL, 'x')"),
        ("engineering", "UPDATE prepaid.payment_verifications SET decision = 'approved'"),
        ("engineering", "SELECT prepaid.decide_tasks(ARRAY[1], 'approved')"),
        ("engineering", "DELETE FROM prepaid.holds"),
        ("finance", "SELECT prepaid.resend_emails(ARRAY[1])"),
        ("customer_success", "UPDATE prepaid.emails SET status = 'pending'"),
    ],
)
def test_the_database_refuses(
    world: World, someone: dict[str, str], team: str, statement: str
) -> None:
    before = world.dump()
    with pytest.raises(DBAPIError, match=r"permission denied for (table|view|schema|function)"):
        sql_as(world, someone[team], statement)
    assert world.dump() == before


def test_everybody_can_do_their_own_work(world: World, someone: dict[str, str]) -> None:
    note = "UPDATE {} SET decision = '{}', note = 'seen' WHERE status = 'Open'"
    payments = note.format("prepaid.payment_verifications", "approved")
    assert sql_as(world, someone["finance"], payments) == 1
    quality = note.format("prepaid.quality_checks", "passed")
    assert sql_as(world, someone["customer_success"], quality) == 1
    assert sql_as(world, someone["leadership"], "SELECT * FROM revenue.monthly_report") == []
    assert sql_as(world, someone["leadership"], "SELECT * FROM revenue.mrr") == []
    (count,) = sql_as(world, someone["engineering"], "SELECT count(*) FROM prepaid.audit_log")[0]
    assert count > 0


def test_a_person_in_no_team_can_do_nothing(cluster: URL, world: World) -> None:
    world.sql("DO $$ BEGIN CREATE ROLE test_nobody; EXCEPTION WHEN OTHERS THEN NULL; END $$")
    for statement in (
        "SELECT * FROM prepaid.tasks",
        "SELECT * FROM revenue.mrr",
        "SELECT prepaid.release_holds(1, 'note')",
    ):
        with pytest.raises(DBAPIError, match="permission denied for schema"):
            sql_as(world, "test_nobody", statement)
