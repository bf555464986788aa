"""What is logged: every change of a state, by triggers; and nothing personal."""

import pytest
from sqlalchemy import Connection, text

from prepaid_pipeline.audit import seals
from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from prepaid_pipeline.settings.load import Settings
from tests.world import TODAY, World, context

PERSONAL = ("Ada Personal", "ada.personal", "Personal Note", "Personal Company")
# Every column that is a state, and the entry that a change of it leaves.
STATES = (
    (
        "service_plans",
        "status",
        "UPDATE prepaid.service_plans SET status = 'Cancelled' WHERE status = 'Pending'",
        "service_plan_cancelled",
    ),
    (
        "invoices",
        "status",
        "UPDATE prepaid.invoices SET status = 'Void' WHERE status = 'Open'",
        "invoice_void",
    ),
    (
        "transactions",
        "outcome",
        "UPDATE prepaid.transactions SET outcome = 'parked' WHERE outcome = 'matched'",
        "transaction_parked",
    ),
    (
        "tasks",
        "status",
        "UPDATE prepaid.tasks SET status = 'Withdrawn' WHERE status = 'Open'",
        "task_withdrawn",
    ),
    (
        "tasks",
        "decision",
        "UPDATE prepaid.tasks SET decision = 'rejected' WHERE decision = 'approved'",
        "task_decided",
    ),
    (
        "tasks",
        "assigned_to",
        "UPDATE prepaid.tasks SET assigned_to = 'test_officer'",
        "task_reassigned",
    ),
    (
        "tasks",
        "closed_at",
        "UPDATE prepaid.tasks SET closed_at = now() WHERE closed_at IS NULL AND status = 'Done'",
        "task_closed",
    ),
    (
        "holds",
        "released_at",
        "UPDATE prepaid.holds SET released_at = now(), released_by = 'x' WHERE released_at IS NULL",
        "hold_released",
    ),
    ("emails", "status", "UPDATE prepaid.emails SET status = 'failed'", "email_failed"),
    (
        "customers",
        "email",
        "UPDATE prepaid.customers SET email = 'else@example.com'",
        "customer_changed",
    ),
    (
        "subscriptions",
        "auto_renew",
        "UPDATE prepaid.subscriptions SET auto_renew = false",
        "subscription_changed",
    ),
)


@pytest.fixture
def busy(world: World) -> World:
    """Plans in many states, with people's names and notes wherever they can be."""
    world.tax_rate("0.0725")
    for _ in range(4):
        world.due_renewal(email="ada.personal@example.com")
    world.sql("UPDATE prepaid.customers SET name = 'Ada Personal'")
    settled, rejected, _, parked = world.open()
    world.pay_and_approve(settled)
    world.settle()
    world.record(world.invoice(rejected), customer_ref="Personal Company")
    record = world.record("Personal Company", "10.73", provider_ref="Personal Company")
    assert record
    world.match()
    world.approve(rejected, word="reject", note="Personal Note: ada.personal@example.com")
    decisions.assign(world.engine, world.officer(), record, world.invoice(parked), "Personal Note")
    world.match()
    second = world.officer("test_second")
    decisions.decide(world.engine, second, [world.task(parked)], "approve", "Personal Note")
    return world


def test_a_change_of_state_leaves_an_entry(busy: World) -> None:
    """Whoever changes it, and in whatever way: as many entries as rows, with before and after."""
    for table, column, change, event in STATES:
        with busy.engine.connect() as connection:
            _only_audit_triggers(connection, table)
            connection.execute(
                text(
                    "SELECT set_config('prepaid.actor', 'somebody', true),"
                    " set_config('prepaid.run_id', 'run 1', true)"
                )
            )
            last = connection.execute(text("SELECT max(audit_id) FROM prepaid.audit_log")).scalar()
            changed = connection.execute(text(change)).rowcount
            assert changed > 0, (table, column)
            entries = connection.execute(
                text(
                    "SELECT event, actor, run_id, before, after, detail FROM prepaid.audit_log"
                    " WHERE audit_id > :last"
                ),
                {"last": last},
            ).all()
        said = [(entry.event, entry.actor, entry.run_id) for entry in entries]
        assert said == [(event, "somebody", "run 1")] * changed, (table, column)
        assert all(e.before or e.after or e.detail for e in entries), (table, column)


def _only_audit_triggers(connection: Connection, table: str) -> None:
    connection.execute(text(f"ALTER TABLE prepaid.{table} DISABLE TRIGGER USER"))
    names = connection.execute(
        text(
            "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'audit%'"
            " AND tgrelid = CAST(:t AS regclass)"
        ),
        {"t": f"prepaid.{table}"},
    )
    for name in names.scalars().all():
        connection.execute(text(f"ALTER TABLE prepaid.{table} ENABLE TRIGGER {name}"))


def test_the_log_holds_no_personal_data(busy: World, settings: Settings) -> None:
    """Nothing of the customer and nothing that people wrote about them, after everything that a
    plan can go through."""
    care = busy.officer("test_care", "customer_success")
    settled, rejected, _, _ = busy.plans()
    decisions.decide(
        busy.engine, care, [busy.task(settled, "quality_check")], "reject", "Personal Note"
    )
    steps.close_quality_checks(busy.engine, context())
    busy.settle()
    decisions.release(busy.engine, busy.officer(), rejected, "Personal Note")
    send_emails(busy.engine, settings, as_of=TODAY, run_id=None)
    named = subscriptions.find(busy.engine, str(settled))
    subscriptions.cancel(
        busy.engine, care, named, "Personal Note", at_once=True, on=None, as_of=TODAY
    )
    busy.sql("UPDATE prepaid.customers SET name = 'Ada Personal-Else', email = NULL")
    entries = [str(row) for row in busy.rows("SELECT a::text FROM prepaid.audit_log a")]
    assert len(entries) > 50
    assert [line for line in entries if any(word in line for word in PERSONAL)] == []
    assert any("the record names customer …" in line for line in entries)
    # The words were written: they are where they can be erased.
    told = busy.rows("SELECT what FROM prepaid.plan_events")
    assert sum("Personal Note" in str(row) for row in told) >= 5
    seals.seal(busy.engine)
    assert seals.verify(busy.engine) == []
