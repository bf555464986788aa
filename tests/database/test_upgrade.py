"""A database of each release, with a plan in every state, goes on where it was."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import migrations
from prepaid_pipeline.database.connections import transaction
from prepaid_pipeline.operations import installation, invariants
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.process.drain import drain
from prepaid_pipeline.settings.load import Settings, load
from tests.database.make_release import LAST_DAY
from tests.database.releases import RELEASES, at_release, everything, plain
from tests.world import World, context

# Whose money comes after the upgrade.
PAYS = ("OPEN", "BOUGHT", "CHANGE", "HELD", "PARKED", "FAILED")
# What people and customers see of the past, whatever the tables are like.
_PAST = """
SELECT 'plan' AS kind, subscription_ref AS name, concat_ws(' ', p.kind, p.status, start_date, end_date,
       net_amount, recurring_amount, monthly_amount, activated_on) AS seen
FROM prepaid.service_plans p JOIN prepaid.subscriptions USING (subscription_id)
UNION ALL
SELECT 'invoice', invoice_number, concat_ws(' ', status, net, tax, total, credit, payable, issued_on)
FROM prepaid.invoices
UNION ALL
SELECT 'line', invoice_number, concat_ws(' ', line_number, description, quantity, unit_price,
       list_amount, discount, l.net, l.tax_rate, l.tax, includes_tax)
FROM prepaid.invoice_lines l JOIN prepaid.invoices USING (invoice_id)
UNION ALL
SELECT 'record', provider_ref, concat_ws(' ', status, amount, outcome, outcome_reason)
FROM prepaid.transactions
UNION ALL
SELECT 'task', task_id::text, concat_ws(' ', kind, assigned_role, status, decision, note, decided_by,
       first_approved_by, opened_on, due_on) FROM prepaid.tasks
UNION ALL
SELECT 'hold', subscription_ref, concat_ws(' ', reason_code, text, held_at, released_at, released_by)
FROM prepaid.holds JOIN prepaid.service_plans USING (service_plan_id)
JOIN prepaid.subscriptions USING (subscription_id)
UNION ALL
SELECT 'mail', message_id, concat_ws(' ', template, occasion, recipient, status, md5(content))
FROM prepaid.emails
UNION ALL
SELECT 'credit note', credit_note_number, concat_ws(' ', net, tax, total) FROM prepaid.credit_notes
UNION ALL
SELECT 'sign-off', task_id::text, to_jsonb(s)::text
FROM prepaid.sign_offs s
UNION ALL
SELECT 'entry', audit_id::text, to_jsonb(e)::text FROM prepaid.audit_log e
UNION ALL
SELECT 'report', month::text, to_jsonb(r)::text FROM revenue.report_versions r
UNION ALL
SELECT 'MRR', month::text, concat_ws(' ', currency, mrr) FROM revenue.mrr
ORDER BY kind, name, seen
"""


@pytest.fixture(scope="module", params=RELEASES)
def upgraded(cluster: URL, request: pytest.FixtureRequest) -> Iterator[World]:
    """A database of a release after the upgrade; what it says of the past is what it said."""
    with at_release(cluster, request.param) as engine:
        world = World(engine)
        past = world.rows(_PAST)
        assert {kind for kind, *_ in past} >= {"plan", "hold", "credit note", "report", "MRR"}
        migrations.upgrade(engine)
        migrations.require_current(engine)
        assert world.rows(_PAST) == past
        yield world


def plan(world: World, name: str) -> int:
    """The newest plan of a subscription."""
    found = world.sql(
        "SELECT max(service_plan_id) FROM prepaid.service_plans"
        " JOIN prepaid.subscriptions USING (subscription_id) WHERE subscription_ref = :name",
        name=f"S-{name}",
    )
    assert isinstance(found, int)
    return found


def test_it_is_made_like_a_new_one(upgraded: World, database_url: URL) -> None:
    made = ("--schema-only", "--schema=prepaid", "--schema=revenue")
    here, new = everything(upgraded.engine.url, *made), everything(database_url, *made)
    assert len(new) > 500
    assert plain(here) == plain(new)


def test_it_has_the_rows_that_a_new_one_has(upgraded: World, world: World) -> None:
    """Such as currencies and reasons; the installation is the one that is upgraded."""
    tables = [
        name
        for (name,) in world.rows(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace IN"
            " ('prepaid'::regnamespace, 'revenue'::regnamespace) ORDER BY 1"
        )
    ]
    rows = {name: world.rows(f"SELECT * FROM {name} ORDER BY 1") for name in tables}  # noqa: S608
    filled = {name for name, found in rows.items() if found} - {
        "prepaid.installation",
        "prepaid.alembic_version",
    }
    assert "prepaid.currencies" in filled
    for name in filled:
        assert upgraded.rows(f"SELECT * FROM {name} ORDER BY 1") == rows[name]  # noqa: S608


def test_a_database_that_has_worked_for_real_days_goes_on_so(cluster: URL) -> None:
    """A run's entry for the day that it was, and a person's and a played one, which do not count."""
    with at_release(cluster, "0.1.0") as engine:
        world = World(engine)
        world.sql(
            "INSERT INTO prepaid.audit_log (event, entity, actor, run_id, at, as_of) VALUES"
            " ('x', 'y', 'fiona', NULL, '2026-11-05T10:00Z', '2026-11-05'),"
            " ('x', 'y', 'prepaid drain', NULL, '2026-11-06T10:00Z', '2026-11-05'),"
            " ('x', 'y', 'open_renewals', 'run', '2026-11-07T10:00Z', '2026-11-07'),"
            " ('x', 'y', 'prepaid drain', NULL, '2026-11-08T10:00Z', '2026-11-08')"
        )
        migrations.upgrade(engine)
        found = world.sql("SELECT first_real_day FROM prepaid.installation")
        assert str(found) == "2026-11-07"


def test_nothing_is_wrong(upgraded: World) -> None:
    assert _wrong(upgraded.engine) == {}
    assert seals.verify(upgraded.engine) == []


def test_work_goes_on(upgraded: World, settings: Settings) -> None:
    """Every plan that waits for something gets it, and is activated."""
    world, at = upgraded, context(LAST_DAY)
    drain(world.engine, settings, at)
    assert world.status(plan(world, "APPROVED")) == "Active"

    accounts.add(world.engine, "fiona", "finance")
    decisions.release(world.engine, "fiona", plan(world, "REJECTED"), "cleared up", LAST_DAY)
    world.sql("UPDATE prepaid.customers SET email = 'h@example.com' WHERE customer_ref = 'C-HELD'")
    decisions.release(world.engine, "fiona", plan(world, "HELD"), "has an address", LAST_DAY)
    drain(world.engine, settings, at)
    for name in PAYS:
        world.record(world.invoice(plan(world, name)), provider_ref=f"later-{name}")
    drain(world.engine, settings, at)
    # One of them is above the limit: it takes another person than the first.
    for name in (*PAYS, "MATCHED", "REJECTED", "FIRST"):
        world.approve(plan(world, name))
    drain(world.engine, settings, at)

    over = {"UNPAID", "LEFT", "ERASED"}
    names = [name for (name,) in world.rows("SELECT subscription_ref FROM prepaid.subscriptions")]
    status = {name[2:]: world.status(plan(world, name[2:])) for name in names}
    assert {name for name, found in status.items() if found != "Active"} == over
    assert world.holds(plan(world, "BACK")) == ["payment_reversed"]
    assert _wrong(world.engine) == {}
    # What the older program logged is sealed with what has come since.
    assert seals.unsealed(world.engine) == 0
    assert seals.verify(world.engine) == []


def member(world: World, name: str, *teams: str) -> None:
    """As 0.1.0 added a person; a role may be there from another database of the server."""
    if not world.sql("SELECT count(*) FROM pg_roles WHERE rolname = :name", name=name):
        world.sql(f"CREATE ROLE {name}")
    for team in teams:
        world.sql(f"GRANT {team} TO {name}")
    world.sql("INSERT INTO prepaid.desk_accounts VALUES (:n) ON CONFLICT DO NOTHING", n=name)


def act(engine: Engine, name: str, statement: str, **params: int) -> None:
    """By a person's own SQL."""
    with transaction(engine, actor=name, as_of=LAST_DAY) as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {name}")
        connection.execute(text(statement), params)


def test_open_approvals_are_judged_by_the_new_rules(cluster: URL) -> None:
    """0.1.0 took an approval before there was a record, and one whose approver acted afterwards."""
    with at_release(cluster, "0.1.0") as engine:
        world = World(engine)
        member(world, "test_officer", "finance")
        member(world, "fergus", "finance", "customer_success")
        early, own = plan(world, "OPEN"), plan(world, "MATCHED")
        tasks = [world.task(early), world.task(own)]
        approve = (
            "UPDATE prepaid.payment_verifications SET decision = 'approved', note = 'seen'"
            " WHERE task_id = :task"
        )
        act(engine, "test_officer", approve, task=tasks[0])
        act(engine, "fergus", approve, task=tasks[1])
        act(engine, "fergus", "SELECT prepaid.set_customer_email(:p, 'new@example.com')", p=own)
        migrations.upgrade(engine)
        assert list(_wrong(engine)) == [
            "23_no_plan_waits_where_no_list_shows_it",
            "24_nobody_approves_their_own_doing",
        ]
        assert sorted(installation.judge_open_approvals(engine)) == sorted(
            f"invoice {world.invoice(found)}: {who} {what}; task {task} is withdrawn, finance is"
            " asked again"
            for found, task, who, what in (
                (early, tasks[0], "test_officer", "approved a payment that no record pays"),
                (own, tasks[1], "fergus", "last changed the customer's data"),
            )
        )
        assert _wrong(engine) == {}
        assert installation.judge_open_approvals(engine) == []
        assert [
            world.task(found) > task for found, task in zip((early, own), tasks, strict=True)
        ] == [
            True,
            True,
        ]


def test_people_go_on_and_strangers_are_listed(cluster: URL) -> None:
    """Who has an account keeps it with their teams; who is only in a team is to be confirmed."""
    stranger = f"stranger_{uuid.uuid4().hex[:8]}"
    with at_release(cluster, RELEASES[-1]) as engine:
        world = World(engine)
        world.sql(f"CREATE ROLE {stranger}")
        world.sql(f"GRANT customer_success TO {stranger}")
        had = world.rows("SELECT person FROM prepaid.desk_accounts ORDER BY 1")
        told = installation.migrate(engine, load({"PREPAID_HOME": "x"}))
        assert [line for line in told if line.startswith(f"{stranger} is in customer_success on")]
        assert len(had) > 2
        assert not [name for (name,) in had if f"{name} is in" in str(told)]
        assert (
            world.rows(
                "SELECT person FROM prepaid.desk_accounts a WHERE teams <> '{}'"
                " AND has_schema_privilege(person, 'revenue', 'USAGE')"
                " AND has_schema_privilege(person, 'prepaid', 'USAGE') = (teams <> '{leadership}')"
                " AND has_database_privilege(person, current_database(), 'CONNECT') ORDER BY 1"
            )
            == had
        )
        assert not world.sql("SELECT prepaid.is_open_to_the_public()")
        assert installation.migrate(engine, load({"PREPAID_HOME": "x"})) == [], "told once"


def _wrong(engine: Engine) -> dict[str, list[str]]:
    found = invariants.run(engine, context(LAST_DAY))
    return {check.name: check.findings for check in found if check.findings}
