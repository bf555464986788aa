"""Each invariant of ``prepaid check`` finds its own violation, and names the row.

The schema refuses all of these; what is planted here goes round it, as a restored backup or a
superuser's hand could.
"""

from datetime import date

import pytest
from sqlalchemy import text

from prepaid_pipeline.billing import subscriptions
from prepaid_pipeline.database import queries
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.process import steps
from tests.world import TODAY, World, context


@pytest.fixture(scope="module")
def full(module_world: World) -> World:
    """One of everything: settled, rejected, held, over 0, parked, failed quality, cancelled."""
    world = module_world
    world.tax_rate("0.0725")
    world.tax_rate("0.10", country="JP")
    for _ in range(4):
        world.due_renewal()
    world.due_renewal(email=None)
    world.subscription(world.customer(), world.plan("0.00"))
    yen = world.customer(country="JP", currency="JPY")
    world.subscription(yen, world.plan("999", currency="JPY"))
    settled, rejected, parked, waiting, *_ = world.open()
    world.pay_and_approve(settled)
    world.record(world.invoice(rejected))
    world.record(world.invoice(parked), "1.00")
    world.record(world.invoice(waiting), status="Pending")
    world.match()
    world.approve(rejected, word="reject", note="blocked account")
    world.settle()
    care = world.officer("checks_care", "customer_success")
    decisions.decide(
        world.engine, care, [world.task(settled, "quality_check")], "reject", "no login"
    )
    steps.close_quality_checks(world.engine, context())
    leaving = world.subscription(world.customer(), world.plan())
    (left,) = (
        p
        for p in world.open()
        if world.rows(
            "SELECT FROM prepaid.service_plans WHERE service_plan_id = :p AND subscription_id = :s",
            p=p,
            s=leaving,
        )
    )
    world.pay_and_approve(left)
    world.settle()
    subscriptions.cancel(
        world.engine,
        care,
        subscriptions.Named(leaving, None),
        "moves",
        at_once=True,
        as_of=date(2026, 11, 3),
    )
    gone = world.subscription(world.customer(), world.plan(), cancelled_on=date(2026, 1, 15))
    world.term(gone, date(2026, 1, 1), date(2026, 2, 1))
    steps.expire_service_plans(world.engine, context())
    return world


def findings(world: World, as_of: date = TODAY) -> dict[str, list[str]]:
    """Check -> what it found; only those that found something."""
    checked = invariants.run(world.engine, context(as_of))
    return {result.name: result.findings for result in checked if result.findings}


def test_a_clean_world_has_no_findings(full: World) -> None:
    results = invariants.run(full.engine, context())
    assert [result.name for result in results] == [
        name.removeprefix("operations/invariants/")
        for name in queries.names("operations/invariants")
    ]
    assert {result.name: result.findings for result in results if result.findings} == {}
    # A rule is a sentence that a person can read.
    assert all(result.rule[0].isupper() and result.rule.endswith(".") for result in results)


def test_an_empty_database_has_no_findings(world: World) -> None:
    assert findings(world) == {}


def test_checks_cannot_write(full: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import InternalError

    writing = queries.parse(
        "operations/invariants/99", "-- Writes.\nDELETE FROM prepaid.holds RETURNING text"
    )
    monkeypatch.setattr(
        queries, "names", lambda _: ["operations/invariants/01_one_paid_invoice_per_activated_plan"]
    )
    real = queries.statement
    monkeypatch.setattr(
        queries,
        "statement",
        lambda name, part=None: real(name, part) if part else writing[0],
    )
    with pytest.raises(InternalError, match="cannot execute DELETE in a read-only transaction"):
        invariants.run(full.engine, context())


# Check, what breaks it (:plan is a settled plan, :invoice_id its invoice), what the finding says.
PLANTED: list[tuple[str, str, str]] = [
    (
        "01_one_paid_invoice_per_activated_plan",
        "UPDATE prepaid.invoices SET status = 'Void', paid_on = NULL"
        " WHERE invoice_id = :invoice_id",
        "service plan {plan} is Active with 0 live invoices, 0 of them paid",
    ),
    (
        "01_one_paid_invoice_per_activated_plan",
        "UPDATE prepaid.invoices SET status = 'Open', paid_on = NULL"
        " WHERE invoice_id = :invoice_id",
        "service plan {plan} is Active with 1 live invoices, 0 of them paid",
    ),
    (
        "02_invoice_lines_add_up",
        "UPDATE prepaid.invoice_lines SET net = net + 0.01, list_amount = list_amount + 0.01"
        " WHERE invoice_id = :invoice_id",
        "invoice {invoice}: net 10.00 and tax 0.73, its lines 10.01 and 0.73",
    ),
    (
        "02_invoice_lines_add_up",
        "DELETE FROM prepaid.invoice_lines WHERE invoice_id = :invoice_id",
        "invoice {invoice}: net 10.00 and tax 0.73, its lines nothing and nothing",
    ),
    (
        "03_invoice_numbers_are_gapless",
        "UPDATE prepaid.invoice_series SET last_number = last_number + 1",
        "series INV 2026: the counter says 8, there are 7 documents with numbers from 1 to 7",
    ),
    (
        "03_invoice_numbers_are_gapless",
        "UPDATE prepaid.invoices SET invoice_number = 'INV-2026-000009'"
        " WHERE invoice_number = 'INV-2026-000006'",
        "series INV 2026: the counter says 7, there are 7 documents with numbers from 1 to 9",
    ),
    (
        "03_invoice_numbers_are_gapless",
        "DELETE FROM prepaid.invoice_series",
        "series INV 2026: there is no counter, there are 7 documents with numbers from 1 to 7",
    ),
    (
        "03_invoice_numbers_are_gapless",
        "UPDATE prepaid.invoices SET invoice_number = 'INV-2026-000000'"
        " WHERE invoice_number = 'INV-2026-000003'",
        "series INV 2026: the counter says 7, there are 7 documents with numbers from 0 to 7",
    ),
    (
        "04_paid_means_paid_and_approved",
        "UPDATE prepaid.invoices SET transaction_id = NULL WHERE invoice_id = :invoice_id",
        "invoice {invoice} is paid, but names a record that has not paid it",
    ),
    (
        "04_paid_means_paid_and_approved",
        "UPDATE prepaid.transactions SET outcome = 'waiting' WHERE invoice_id = :invoice_id",
        "invoice {invoice} is paid, but has no matched payment record",
    ),
    (
        "04_paid_means_paid_and_approved",
        "UPDATE prepaid.tasks SET decision = 'rejected' WHERE invoice_id = :invoice_id",
        "invoice {invoice} is paid, but nobody has approved the payment",
    ),
    (
        "04_paid_means_paid_and_approved",
        "UPDATE prepaid.transactions SET amount = 1.00 WHERE invoice_id = :invoice_id",
        "invoice {invoice} is paid, but its records say Success 1.00 USD",
    ),
    (
        "05_settled_plans_are_complete",
        "DELETE FROM prepaid.emails WHERE service_plan_id = :plan",
        "service plan {plan}: 1 provisioning entries, 0 confirmations, 1 quality checks",
    ),
    (
        "05_settled_plans_are_complete",
        "DELETE FROM prepaid.audit_log WHERE event = 'service_provisioned'"
        " AND service_plan_id = :plan",
        "service plan {plan}: 0 provisioning entries, 1 confirmations, 1 quality checks",
    ),
    (
        "06_no_plan_is_stuck",
        "WITH b AS (INSERT INTO prepaid.batches (queue, as_of, leased_until) VALUES"
        " ('settle_renewals', '2026-11-02', '2026-11-02') RETURNING batch_id)"
        " INSERT INTO prepaid.unsettled_plans SELECT :plan, batch_id FROM b",
        "service plan {plan} (Active) belongs to batch",
    ),
    (
        "07_no_silent_misses",
        "UPDATE prepaid.subscriptions SET cancelled_on = NULL WHERE cancelled_on IS NOT NULL",
        "its term ended on 2026-02-01 and nothing followed",
    ),
    (
        "08_every_purchase_was_opened",
        "INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor)"
        " SELECT 'opening_failed', 'subscription', min(subscription_id), 'date out of range',"
        " 'pipeline' FROM prepaid.subscriptions",
        "date out of range",
    ),
    (
        "09_tasks_say_what_was_signed",
        "UPDATE prepaid.tasks SET decided_by = 'nobody' WHERE invoice_id = :invoice_id",
        "task {task} says approved by nobody, its latest sign-off approved by test_officer",
    ),
    (
        "09_tasks_say_what_was_signed",
        "DELETE FROM prepaid.sign_offs s USING prepaid.tasks k WHERE k.task_id = s.task_id"
        " AND k.invoice_id = :invoice_id",
        "task {task} says approved by test_officer, its latest sign-off nothing",
    ),
    (
        "10_amounts_fit_their_currency",
        "UPDATE prepaid.service_plans SET net_amount = 999.5 WHERE currency = 'JPY'",
        "999.5 JPY",
    ),
    (
        "10_amounts_fit_their_currency",
        "UPDATE prepaid.invoices SET net = net + 0.001, total = total + 0.001"
        " WHERE invoice_id = :invoice_id",
        "invoice {invoice}: 10.001 USD",
    ),
    (
        "11_every_state_is_in_the_audit_log",
        "UPDATE prepaid.service_plans SET status = 'Expired' WHERE service_plan_id = :plan",
        "service plan {plan} is Expired, its last audit entry says Active",
    ),
    (
        "11_every_state_is_in_the_audit_log",
        "DELETE FROM prepaid.audit_log WHERE entity = 'service_plan'"
        " AND event LIKE 'service_plan%' AND service_plan_id = :plan",
        "service plan {plan} is Active, its last audit entry says nothing",
    ),
    (
        "12_renewals_follow_on",
        "UPDATE prepaid.service_plans SET start_date = start_date + 1"
        " WHERE service_plan_id = :plan",
        "service plan {plan} starts on 2026-11-03, the term before it ended on 2026-11-02",
    ),
    (
        "13_records_have_one_outcome",
        "DELETE FROM prepaid.tasks WHERE kind = 'payment_review'",
        "of bank is parked without a task",
    ),
    (
        "13_records_have_one_outcome",
        "UPDATE prepaid.transactions SET outcome = 'lost' WHERE outcome = 'waiting'",
        "of bank is lost",
    ),
    (
        "14_history_has_arrived",
        "INSERT INTO prepaid.subscriptions_awaiting_history SELECT subscription_id"
        " FROM prepaid.service_plans WHERE service_plan_id = :plan",
        "is not opened: correct the service_plans.csv or discounts.csv that came with it",
    ),
    (
        "15_no_plan_is_forgotten",
        "UPDATE prepaid.invoices SET status = 'Void' WHERE status = 'Open'",
        "waits for its payment and has no live invoice",
    ),
    (
        "15_no_plan_is_forgotten",
        "DELETE FROM prepaid.unsettled_plans",
        "is Pending and in no queue",
    ),
    (
        "15_no_plan_is_forgotten",
        "UPDATE prepaid.service_plans SET status = 'Cancelled', activated_on = NULL"
        " WHERE service_plan_id = :plan",
        "pays invoice {invoice} of service plan {plan}, which is cancelled",
    ),
    (
        "16_closed_months_show_todays_truth",
        "WITH computed AS (INSERT INTO revenue.months (month, as_of, run_id)"
        " VALUES ('2026-09-01', '2026-10-08', 'x') RETURNING month), closed AS ("
        "INSERT INTO revenue.report_versions (month, version, cut_off, note, run_id)"
        " SELECT month, 1, '2026-10-08', 'x', 'x' FROM computed)"
        " INSERT INTO revenue.mrr SELECT month, 'USD', 'sold-once', 1, 10 FROM computed",
        "2026-09 changed since version 1: prepaid backfill 2026-09 2026-09",
    ),
    (
        "17_terms_do_not_overlap",
        "UPDATE prepaid.service_plans SET full_end_date = end_date, end_date = end_date - 1"
        " WHERE service_plan_id = :plan",
        "service plan {plan} was cut on 2026-12-01, but no change of plan follows",
    ),
    (
        "18_credit_notes_add_up",
        "UPDATE prepaid.credit_note_lines SET tax = tax + 0.01",
        "credit note CN-2026-000001: net 9.67 and tax 0.71, its lines 9.67 and 0.72",
    ),
    (
        "18_credit_notes_add_up",
        "UPDATE prepaid.credit_notes SET net = 99, total = 99 + tax",
        "credit note CN-2026-000001 over net 99 and tax 0.71 is for invoice",
    ),
    (
        "19_credit_is_given_once",
        "UPDATE prepaid.invoices SET credit = 1 WHERE invoice_id = :invoice_id",
        "invoice {invoice} of service plan {plan} was credited 1, credit notes apply 0 to it",
    ),
    (
        "19_credit_is_given_once",
        "DELETE FROM prepaid.tasks WHERE kind = 'payment_refund'",
        "credit note CN-2026-000001 leaves 10.38 USD to pay back, and no task asks for it",
    ),
    (
        "20_audit_log_is_sealed",
        "INSERT INTO prepaid.audit_log (event, entity, actor, at)"
        " VALUES ('x', 'y', 'z', clock_timestamp() - interval '25 hours')",
        "is in no seal",
    ),
    (
        "25_expired_terms_have_ended",
        "UPDATE prepaid.service_plans SET status = 'Expired', end_date = '2199-01-01'"
        " WHERE service_plan_id = :plan",
        "service plan {plan} is Expired, but its term runs until 2199-01-01",
    ),
    (
        "21_cancelled_plans_are_closed",
        "UPDATE prepaid.service_plans SET status = 'Cancelled' WHERE status = 'Pending'",
        "is cancelled, but its invoice",
    ),
    (
        "21_cancelled_plans_are_closed",
        "UPDATE prepaid.service_plans SET status = 'Cancelled' WHERE status = 'Pending'",
        "is cancelled, but waits in the queue",
    ),
    (
        "21_cancelled_plans_are_closed",
        "UPDATE prepaid.service_plans SET status = 'Cancelled' WHERE status = 'Pending'",
        "is cancelled, but held (payment_rejected)",
    ),
    (
        "22_open_invoices_are_asked_about",
        "DELETE FROM prepaid.tasks WHERE kind = 'payment_verification' AND status = 'Open'",
        "is open, and no task asks finance to verify its payment",
    ),
    (
        "23_no_plan_waits_where_no_list_shows_it",
        "UPDATE prepaid.tasks SET status = 'Done', decision = 'approved' WHERE status = 'Open'"
        " AND kind = 'payment_verification'",
        "is approved, and no record pays it, but no list shows it",
    ),
    (
        "24_nobody_approves_their_own_doing",
        "WITH mine AS (UPDATE prepaid.tasks SET status = 'Done', decision = 'approved', decided_by ="
        " 'somebody' WHERE status = 'Open' AND kind = 'payment_verification' RETURNING service_plan_id)"
        " INSERT INTO prepaid.audit_log (event, service_plan_id, entity, before, actor)"
        " SELECT 'transaction_assigned', service_plan_id, 'transaction', 'parked', 'somebody' FROM mine",
        "is approved by somebody, who assigned the payment to the invoice",
    ),
]


def test_every_check_has_a_planted_violation() -> None:
    assert {f"operations/invariants/{check}" for check, _, _ in PLANTED} == set(
        queries.names("operations/invariants")
    )


@pytest.mark.parametrize(("check", "violation", "said"), PLANTED)
def test_a_violation_is_found(full: World, check: str, violation: str, said: str) -> None:
    ((plan, invoice_id, invoice, task),) = full.rows(
        "SELECT p.service_plan_id, i.invoice_id, i.invoice_number, k.task_id"
        " FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)"
        " JOIN prepaid.tasks k USING (invoice_id) WHERE k.kind = 'payment_verification'"
        " AND p.service_plan_id NOT IN (SELECT service_plan_id FROM prepaid.unsettled_plans)"
        " AND p.status = 'Active'"
    )
    with full.engine.connect() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        # These stand even then: only who may change the tables themselves gets round them.
        for table in ("sign_offs", "audit_log"):
            connection.execute(text(f"ALTER TABLE prepaid.{table} DISABLE TRIGGER USER"))
        named = text(violation)
        values = {"plan": plan, "invoice_id": invoice_id}
        broken = connection.execute(named, {k: values[k] for k in named._bindparams})
        assert broken.rowcount > 0
        statement = queries.statement(f"operations/invariants/{check}")
        found = list(statement.execute(connection, context().parameters()).scalars())
        connection.rollback()
    assert found != []
    assert any(said.format(plan=plan, invoice=invoice, task=task) in line for line in found), found
    # Without the violation the check is silent: it was this that it found.
    assert check not in findings(full)


def test_money_taken_back_without_its_tasks_is_found(world: World) -> None:
    """A chargeback opens the invoice again: finance is to look at the record, and at what comes."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    number = world.invoice(plan)
    world.record(number, provider_ref="p1")
    world.match()
    world.approve(plan)
    world.settle()
    world.record(number, provider_ref="p1", status="Chargeback", occurred_at="2026-11-04T10:00:00Z")
    world.match()
    assert findings(world) == {}
    world.sql("DELETE FROM prepaid.tasks WHERE kind = 'payment_review' AND status = 'Open'")
    world.sql("DELETE FROM prepaid.tasks WHERE kind = 'payment_verification' AND status = 'Open'")
    assert findings(world) == {
        "13_records_have_one_outcome": ["record p1 of bank is parked without a task"],
        "22_open_invoices_are_asked_about": [
            f"invoice {number} of service plan {plan} is open, and no task asks finance to verify"
            " its payment"
        ],
    }


def test_a_credited_plan_whose_payment_is_taken_back_is_no_finding(world: World) -> None:
    world.tax_rate("0.0725")
    subscription = world.subscription(world.customer(), world.plan())
    (plan,) = world.open()
    number = world.invoice(plan)
    world.record(number, provider_ref="p1")
    world.match()
    world.approve(plan)
    with world.engine.begin() as connection:
        for step in ("lock_approvals", "mark_paid"):
            queries.statement("steps/07_mark_invoices_paid", step).execute(
                connection, context().parameters() | {"plans": [plan]}
            )
    care = world.officer("credit_care", "customer_success")
    subscriptions.cancel(
        world.engine,
        care,
        subscriptions.Named(subscription, plan),
        "moves",
        at_once=True,
        as_of=TODAY,
    )
    assert world.status(plan) == "Cancelled"
    world.record(number, provider_ref="p1", status="Chargeback", occurred_at="2026-11-04T10:00Z")
    world.match()
    assert world.sql("SELECT status FROM prepaid.invoices") == "Open"
    assert findings(world) == {}


def test_terms_that_overlap_are_found(full: World) -> None:
    """The one that the schema refuses even to a hand that goes round its triggers."""
    with full.engine.connect() as connection:
        connection.execute(
            text(
                "ALTER TABLE prepaid.service_plans DROP CONSTRAINT service_plans_terms_do_not_overlap"
            )
        )
        connection.execute(
            text(
                "UPDATE prepaid.service_plans p SET start_date = p.start_date - 5"
                " FROM prepaid.service_plans previous WHERE p.kind = 'renewal' AND p.status = 'Active'"
                " AND previous.service_plan_id = p.previous_plan_id"
            )
        )
        statement = queries.statement("operations/invariants/17_terms_do_not_overlap")
        (found, *_) = statement.execute(connection, context().parameters()).scalars()
        connection.rollback()
    assert "starts on 2026-10-28, before service plan" in found
