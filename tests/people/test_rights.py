"""What each team may do in the database, by the roles themselves."""

from collections.abc import Callable

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from tests.people.conftest import sql_as
from tests.world import World

TEAMS = ("finance", "customer_success", "leadership", "engineering")

# Every column of every relation of ours that a role may read or write; the grants of 13_rights.sql
# in the words of the database itself.
_PRIVILEGES = """
SELECT r.team, p.privilege, c.relname, a.attname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN unnest(CAST(:teams AS text[])) r (team)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p (privilege)
WHERE c.relkind IN ('r', 'v', 'm', 'p')
  AND has_schema_privilege(r.team, n.oid, 'USAGE')
  AND has_column_privilege(r.team, c.oid, a.attnum, p.privilege)
"""
_MORE = """
SELECT r.team, p.privilege, c.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN unnest(CAST(:teams AS text[])) r (team)
CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) p (privilege)
WHERE c.relkind IN ('r', 'v', 'm', 'p') AND has_table_privilege(r.team, c.oid, p.privilege)
"""
_PERSONAL = """
SELECT p.oid::regprocedure::text FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname IN ('prepaid', 'revenue')
WHERE p.prosecdef AND has_function_privilege(:team, p.oid, 'EXECUTE')
  AND has_schema_privilege(:team, n.oid, 'USAGE')
ORDER BY 1
"""
ASSIGN = "prepaid.assign_record(bigint,text,text)"
DECIDE = "prepaid.decide_tasks(bigint[],text,text)"
RELEASE = "prepaid.release_holds(bigint,text)"
RESEND = "prepaid.resend_emails(bigint[])"
CANCEL = "prepaid.cancel(bigint,bigint,boolean,date,text)"
CHANGE = "prepaid.change_plan(bigint,text,numeric,text[],date,text)"
VOID = "prepaid.void_invoice(text,boolean,text)"


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    """One invoice that waits, one active plan with its quality check."""
    module_world.tax_rate("0.0725")
    module_world.due_renewal()
    module_world.due_renewal()
    first, _ = module_world.open()
    module_world.pay_and_approve(first)
    module_world.settle()
    return module_world


@pytest.fixture(scope="module")
def someone(world: World, person: Callable[[World, str], str]) -> dict[str, str]:
    return {team: person(world, team) for team in TEAMS}


def test_only_the_two_decisions_can_be_written(world: World) -> None:
    rows = world.rows(_PRIVILEGES, teams=list(TEAMS))
    written = {
        (team, what, table, column) for team, what, table, column in rows if what != "SELECT"
    }
    assert written == {
        ("finance", "UPDATE", "payment_verifications", "decision"),
        ("finance", "UPDATE", "payment_verifications", "note"),
        ("customer_success", "UPDATE", "quality_checks", "decision"),
        ("customer_success", "UPDATE", "quality_checks", "note"),
    }
    assert world.rows(_MORE, teams=list(TEAMS)) == []


def test_who_reads_what(world: World) -> None:
    rows = world.rows(_PRIVILEGES, teams=list(TEAMS))
    reads = {team: {row[2] for row in rows if row[:2] == (team, "SELECT")} for team in TEAMS}
    operational = {row[0] for row in world.rows(
        "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'prepaid' AND relkind IN ('r', 'v')"
    )}  # fmt: skip
    assert reads["leadership"].isdisjoint(operational)
    assert {"mrr", "mrr_movements", "plan_activations", "monthly_report"} <= reads["leadership"]
    assert reads["customer_success"] == {"quality_checks", "tasks", "holds"}
    assert {"payment_verifications", "monthly_report"} <= reads["finance"]
    assert "quality_checks" not in reads["finance"]
    assert operational <= reads["engineering"]


def test_who_may_call_what_acts_with_the_owners_rights(world: World) -> None:
    calls = {team: [row[0] for row in world.rows(_PERSONAL, team=team)] for team in TEAMS}
    assert calls == {
        "finance": [ASSIGN, CANCEL, CHANGE, DECIDE, RELEASE, VOID],
        "customer_success": [CANCEL, CHANGE, DECIDE, RELEASE, RESEND],
        "engineering": [RELEASE, RESEND],
        "leadership": [],
    }


@pytest.mark.parametrize(
    ("team", "statement"),
    [
        ("finance", "UPDATE prepaid.tasks SET decision = 'approved', status = 'Done'"),
        ("finance", "UPDATE prepaid.payment_verifications SET total = 0"),
        ("finance", "UPDATE prepaid.payment_verifications SET decided_by = 'somebody'"),
        ("finance", "INSERT INTO prepaid.sign_offs (task_id, decision, decided_by) SELECT task_id,"
                    " 'approved', 'somebody' FROM prepaid.tasks"),
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
)  # fmt: skip
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
