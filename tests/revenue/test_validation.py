"""Every rule passes on good rows and fails on rows that break it, naming the months."""

import multiprocessing
import sys
from datetime import date

import pytest
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.revenue import figures, validation
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.revenue.rules import INPUTS, MONTHLY_FIGURES, MONTHLY_REPORT, Suite
from prepaid_pipeline.revenue.validation import Finding
from tests.revenue.history import RUN, Term, insert, publish
from tests.revenue.test_reversals import PAID, credit_note, invoice, land, record
from tests.world import World

D = date
SPAN = Span(D(2026, 3, 1), D(2026, 5, 1), D(2026, 6, 30))
# rule -> what breaks it in the staged rows of MARCH to MAY
BREAKS_FIGURES = {
    "one_mrr_row_per_month_currency_and_plan": "INSERT INTO revenue.mrr_staging SELECT * FROM revenue.mrr_staging",
    "mrr_lies_in_the_months_asked_for": "UPDATE revenue.mrr_staging SET month = '2026-07-01' WHERE month = '2026-04-01'",
    "mrr_is_known": "UPDATE revenue.mrr_staging SET mrr = NULL WHERE month = '2026-04-01'",
    "mrr_is_never_negative": "UPDATE revenue.mrr_staging SET mrr = -1 WHERE month = '2026-04-01'",
    "a_plan_with_mrr_has_active_terms": "UPDATE revenue.mrr_staging SET active_plans = 0",
    "mrr_is_the_terms_counted_one_by_one": "UPDATE revenue.mrr_staging SET mrr = mrr + 0.01 WHERE month = '2026-05-01'",
    "one_mrr_row_per_month_currency_and_country": "INSERT INTO revenue.mrr_by_country_staging SELECT * FROM revenue.mrr_by_country_staging",
    "mrr_of_a_country_is_never_negative": "UPDATE revenue.mrr_by_country_staging SET mrr = -1",
    "a_country_has_no_more_customers_than_plans": "UPDATE revenue.mrr_by_country_staging SET customers = active_plans + 1",
    "countries_add_up_to_the_mrr": "UPDATE revenue.mrr_by_country_staging SET mrr = mrr + 0.01",
    "every_customer_is_in_a_country": "UPDATE revenue.mrr_by_country_staging SET customers = 0",
    "one_row_per_month_currency_and_movement": "INSERT INTO revenue.mrr_movements_staging SELECT * FROM revenue.mrr_movements_staging",
    "movements_are_of_five_kinds": "UPDATE revenue.mrr_movements_staging SET movement = 'odd'",
    "a_movement_has_customers": "UPDATE revenue.mrr_movements_staging SET customers = 0",
    "gains_are_positive_and_losses_negative": "UPDATE revenue.mrr_movements_staging SET movement = 'churn' WHERE movement = 'new'",
    "start_and_movements_make_the_end": "UPDATE revenue.mrr_movements_staging SET amount = amount + 0.01",
    "a_month_starts_where_the_last_one_ended": "UPDATE revenue.mrr_bridge_staging SET closing_mrr = 1 WHERE month = '2026-03-01'",
    "movements_lead_to_the_mrr_of_the_month": "DELETE FROM revenue.mrr_staging WHERE month = '2026-04-01'",
    "one_row_per_month_currency_plan_and_kind": "INSERT INTO revenue.plan_activations_staging"
    " SELECT * FROM revenue.plan_activations_staging",
    "activations_are_of_four_kinds": "UPDATE revenue.plan_activations_staging SET kind = 'odd'",
    "the_net_amount_is_known": "UPDATE revenue.plan_activations_staging SET net_amount = NULL",
    "the_net_amount_is_never_negative": "UPDATE revenue.plan_activations_staging SET net_amount = -1",
    "kinds_add_up_to_all_activations": "DELETE FROM revenue.plan_activations_staging WHERE month = '2026-03-01'",
    "one_row_per_month_currency_country_and_kind": "INSERT INTO revenue.activations_by_country_staging"
    " SELECT * FROM revenue.activations_by_country_staging",
    "countries_add_up_to_the_activations": "UPDATE revenue.activations_by_country_staging SET net_amount = net_amount + 0.01",
    "one_row_per_month_currency_and_kind_of_reversal": "INSERT INTO revenue.payment_reversals_staging"
    " SELECT * FROM revenue.payment_reversals_staging",
    "reversals_lie_in_the_months_asked_for": "UPDATE revenue.payment_reversals_staging SET month = '2026-07-01'",
    "reversals_are_of_four_kinds": "UPDATE revenue.payment_reversals_staging SET kind = 'Success'",
    "a_reversal_has_records": "UPDATE revenue.payment_reversals_staging SET records = 0",
    "only_a_reversed_chargeback_brings_money_back": "UPDATE revenue.payment_reversals_staging SET amount = -amount",
    "one_row_of_credit_notes_per_month_and_currency": "INSERT INTO revenue.credit_notes_issued_staging"
    " SELECT * FROM revenue.credit_notes_issued_staging",
    "credit_notes_are_net_and_tax": "UPDATE revenue.credit_notes_issued_staging SET tax = tax + 1",
    "one_row_of_renewals_per_month_currency_plan_and_country": "INSERT INTO revenue.renewal_outcomes_staging"
    " SELECT * FROM revenue.renewal_outcomes_staging",
    "outcomes_add_up_to_the_terms_due": "UPDATE revenue.renewal_outcomes_staging SET lapsed = lapsed + 1",
    "terms_due_are_those_that_ended_one_by_one": "DELETE FROM revenue.renewal_outcomes_staging WHERE month = '2026-04-01'",
    "nothing_waits_once_the_days_of_grace_are_over": "UPDATE revenue.renewal_outcomes_staging SET waiting = 1 WHERE month = '2026-05-01'",
    "one_row_of_retention_per_month_currency_and_window": "INSERT INTO revenue.retention_staging SELECT * FROM revenue.retention_staging",
    "no_more_is_kept_than_there_was": "UPDATE revenue.retention_staging SET mrr_kept = mrr_before + 0.01",
    "retention_over_a_month_is_what_the_movements_say": "UPDATE revenue.retention_staging SET mrr_now = mrr_now + 0.01",
    "one_row_per_month_currency_and_cohort": "INSERT INTO revenue.cohorts_staging SELECT * FROM revenue.cohorts_staging",
    "no_more_of_a_cohort_is_kept_than_there_was": "UPDATE revenue.cohorts_staging SET customers_kept = customers + 1",
    "cohorts_add_up_to_customers_and_mrr": "DELETE FROM revenue.cohorts_staging WHERE cohort = '2026-04-01'",
    "one_row_of_deferred_revenue_per_month_and_currency": "INSERT INTO revenue.deferred_revenue_staging"
    " SELECT * FROM revenue.deferred_revenue_staging",
    "billed_less_recognised_and_refunded_is_the_change_of_what_is_owed": "UPDATE revenue.deferred_revenue_staging SET recognised = recognised + 0.01",
    "a_month_owes_at_first_what_the_last_one_owed": "UPDATE revenue.deferred_revenue_staging SET opening = opening + 1, closing = closing + 1"
    " WHERE month = '2026-04-01'",
    "what_is_owed_is_the_terms_counted_one_by_one": "UPDATE revenue.deferred_revenue_staging SET closing = closing + 0.01"
    " WHERE month = '2026-05-01'",
    "nobody_is_owed_less_than_nothing": "UPDATE revenue.deferred_revenue_staging SET closing = -1",
    "one_row_per_month_currency_and_line": "INSERT INTO revenue.reconciliation_staging SELECT * FROM revenue.reconciliation_staging",
    "every_term_that_was_billed_has_its_invoice": "UPDATE revenue.reconciliation_staging SET amount = 1 WHERE line = 'invoices_remainder'",
    "every_invoice_is_paid_with_money_that_came": "UPDATE revenue.reconciliation_staging SET amount = 1 WHERE line = 'cash_remainder'",
}
BREAKS_REPORT = {
    "one_report_per_month_and_currency": "INSERT INTO revenue.monthly_report_staging SELECT * FROM revenue.monthly_report_staging",
    "the_bridge_adds_up_as_shown": "UPDATE revenue.monthly_report_staging SET opening_mrr = opening_mrr + 0.01",
    "plans_add_up_to_the_mrr_as_shown": "UPDATE revenue.monthly_report_staging SET active_plans = active_plans + 1",
    "countries_add_up_to_the_headline": "UPDATE revenue.monthly_report_staging SET figures ="
    " jsonb_set(figures, '{countries,0,mrr}', '\"9999.00\"')",
    "activations_add_up_to_the_headline": "UPDATE revenue.monthly_report_staging SET renewals = renewals + 1",
    "the_report_shows_the_published_mrr": "UPDATE revenue.mrr SET mrr = mrr + 0.01",
    "the_report_shows_what_was_taken_back": "UPDATE revenue.payment_reversals SET amount = amount + 0.01",
    "renewals_add_up_as_shown": "UPDATE revenue.monthly_report_staging"
    " SET figures = jsonb_set(figures, '{renewals,due}', '99')",
    "cohorts_add_up_to_the_mrr_as_shown": "UPDATE revenue.monthly_report_staging"
    " SET figures = jsonb_set(figures, '{cohorts,0,mrr_now}', '\"0.01\"')",
    "deferred_revenue_and_its_reconciliation_add_up_as_shown": "UPDATE revenue.monthly_report_staging"
    " SET figures = jsonb_set(figures, '{deferred,closing}', '\"0.01\"')",
}
BREAKS_INPUTS = {
    "customers_can_be_reached_by_email": "UPDATE prepaid.customers SET email = NULL",
    "plans_belong_to_the_customer_of_their_subscription": "UPDATE prepaid.service_plans SET customer_id ="
    " (SELECT max(customer_id) FROM prepaid.customers)",
    "plans_are_in_the_currency_of_their_customer": "UPDATE prepaid.service_plans SET currency = 'EUR'",
    "amounts_have_the_decimals_of_their_currency": "UPDATE prepaid.service_plans SET net_amount = 9.999",
    "activated_plans_are_paid_or_held": "UPDATE prepaid.service_plans SET origin = 'pipeline'",
    "terms_are_as_long_as_their_plan_says": "UPDATE prepaid.service_plans SET end_date = end_date + 9",
    "invoices_are_the_sum_of_their_lines": "INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net,"
    " tax, total, status, issued_on) SELECT 'X-1', min(service_plan_id), min(customer_id),"
    " 'USD', 1, 0, 1, 'Open', '2026-03-01' FROM prepaid.service_plans",
    "payment_records_get_an_outcome_in_time": "INSERT INTO prepaid.transactions (provider, received_at) VALUES ('bank', '2026-03-01')",
    "pending_and_unknown_payments_are_cleared_up_in_time": "INSERT INTO prepaid.transactions (provider, received_at, status, outcome)"
    " VALUES ('bank', '2026-03-01', 'Pending', 'waiting')",
    "tasks_are_decided_in_time": "INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on)"
    " SELECT 'quality_check', min(service_plan_id), 'customer_success', '2026-03-01',"
    " '2026-03-04'"
    " FROM prepaid.service_plans",
    "plans_that_renew_have_a_price": "UPDATE prepaid.subscriptions SET price = NULL",
    "countries_of_customers_have_a_tax_rate": "DELETE FROM prepaid.tax_rates",
    "agreed_prices_have_the_decimals_of_their_currency": "UPDATE prepaid.subscriptions SET price = 9.999",
    "held_plans_are_released_in_time": "INSERT INTO prepaid.holds (service_plan_id, reason_code, text, held_at)"
    " SELECT min(service_plan_id), 'step_failed', 'x', '2026-03-01' FROM prepaid.service_plans",
    "charges_are_what_was_invoiced": "INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net,"
    " tax, total, status, issued_on) SELECT 'X-1', min(service_plan_id), min(customer_id),"
    " 'USD', 1, 0, 1, 'Open', '2026-03-01' FROM prepaid.service_plans",
    "what_is_approved_was_signed": "INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on,"
    " status, decision, decided_at, decided_by) SELECT 'quality_check', min(service_plan_id),"
    " 'customer_success', '2026-03-01', '2026-03-04', 'Done', 'passed', now(), 'x'"
    " FROM prepaid.service_plans",
    "confirmations_are_delivered": "INSERT INTO prepaid.emails (service_plan_id, template, occasion, recipient, status,"
    " content) SELECT min(service_plan_id), 'x', 'x', 'x', 'failed', 'x'"
    " FROM prepaid.service_plans",
    "activated_plans_are_in_the_provisioning_log": "INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net,"
    " tax, total, status, issued_on, paid_on) SELECT 'X-1', min(service_plan_id),"
    " min(customer_id), 'USD', 1, 0, 1, 'Paid', '2026-03-01', '2026-03-01'"
    " FROM prepaid.service_plans",
}
TERMS = [
    Term(D(2026, 3, 5)),
    Term(D(2026, 4, 5), kind="renewal"),
    Term(D(2026, 4, 9), "90.00", 3, customer=2),
    Term(D(2026, 4, 9), "90.00", 3, customer=3, end=D(2026, 5, 20), status="Cancelled"),
]


@pytest.fixture
def good(module_world: World) -> Engine:
    """Good terms in a database that the tests of this module share; they are staged anew each."""
    engine = module_world.engine
    if not module_world.rows("SELECT FROM prepaid.service_plans"):
        insert(engine, TERMS)
        number = invoice(engine)
        module_world.sql(
            "INSERT INTO prepaid.charges (service_plan_id, line_number, description, currency, net,"
            " tax_class, tax_rate, tax, calculated_for, quantity, unit_price, list_amount, discount,"
            " includes_tax, recurring_net) SELECT service_plan_id, 1, 'plan', currency, net,"
            " 'standard', 0, 0, issued_on, 1, net, net, 0, false, net FROM prepaid.invoices"
        )
        module_world.sql(
            "INSERT INTO prepaid.invoice_lines (invoice_id, line_number, description, net,"
            " tax_class, tax_rate, tax, quantity, unit_price, list_amount, discount, includes_tax)"
            " SELECT invoice_id, 1, 'plan', net, 'standard', 0, 0, 1, net, net, 0, false"
            " FROM prepaid.invoices"
        )
        module_world.sql("UPDATE prepaid.customers SET email = 'someone@example.com'")
        module_world.sql("UPDATE prepaid.subscriptions SET price = 10")
        module_world.sql(
            "INSERT INTO prepaid.tax_rates (country, tax_class, rate, valid_from)"
            " SELECT DISTINCT country, 'standard', 0.1, DATE '2020-01-01' FROM prepaid.customers"
        )
        back = [f"2026-{month:02}-05T10:00:00Z" for month in (3, 4, 5)]
        land(engine, [record("Success", PAID), *(record("Refunded", at, "9.00") for at in back)])
        module_world.sql(
            "UPDATE prepaid.transactions SET invoice_id = (SELECT invoice_id FROM prepaid.invoices"
            " WHERE invoice_number = :n)",
            n=number,
        )
        credit_note(engine, 1, "2026-04-09", "20.00", "3.80")
        module_world.sql("UPDATE prepaid.tasks SET status = 'Withdrawn'")
        publish(engine, "2026-03", "2026-05", D(2026, 6, 30))
    figures.stage(engine, SPAN, RUN)
    return engine


def findings(engine: Engine, suites: tuple[Suite, ...]) -> dict[str, Finding]:
    found = validation.validate(engine.url, suites, run_id=RUN, as_of=SPAN.as_of)
    return {finding.rule.name: finding for finding in found}


def test_good_figures_pass(good: Engine) -> None:
    found = findings(good, MONTHLY_FIGURES)
    assert set(found) == set(BREAKS_FIGURES)
    assert [name for name, finding in found.items() if not finding.passed] == []


@pytest.mark.long
def test_started_ahead_it_finds_the_same(good: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long run imports the library in another process, which ends when it is no longer needed."""
    with good.begin() as connection:
        connection.exec_driver_sql(BREAKS_FIGURES["mrr_is_known"])
    here = findings(good, MONTHLY_FIGURES)
    monkeypatch.delitem(sys.modules, "great_expectations")
    before = set(multiprocessing.active_children())
    validation.start()
    try:
        monkeypatch.setattr(validation, "_findings", None)
        (process,) = set(multiprocessing.active_children()) - before
        assert findings(good, MONTHLY_FIGURES) == here
    finally:
        validation.stop()
    assert not process.is_alive()


@pytest.mark.parametrize("rule", BREAKS_FIGURES)
def test_a_bad_figure_is_found(good: Engine, rule: str) -> None:
    with good.begin() as connection:
        connection.exec_driver_sql(BREAKS_FIGURES[rule])
    (finding,) = [findings(good, suites_of(rule))[rule]]
    assert finding.stops
    assert finding.failing > 0
    assert set(finding.months) <= {"2026-03", "2026-04", "2026-05", "2026-07"}
    assert finding.months
    assert finding.months[0] in str(finding)


def suites_of(rule: str) -> tuple[Suite, ...]:
    every = (*MONTHLY_FIGURES, *MONTHLY_REPORT, *INPUTS)
    return tuple(
        Suite(s.asset, s.schema, s.table, s.keys, tuple(r for r in s.rules if r.name == rule))
        for s in every
        if rule in {r.name for r in s.rules}
    )


def test_good_reports_pass(good: Engine) -> None:
    versions.stage(good, SPAN, RUN)
    found = findings(good, MONTHLY_REPORT)
    assert set(found) == set(BREAKS_REPORT)
    assert [name for name, finding in found.items() if not finding.passed] == []


@pytest.mark.parametrize("rule", BREAKS_REPORT)
def test_a_bad_report_is_found(good: Engine, rule: str) -> None:
    versions.stage(good, SPAN, RUN)
    with good.begin() as connection:
        connection.exec_driver_sql(BREAKS_REPORT[rule])
    (finding,) = [findings(good, suites_of(rule))[rule]]
    publish(good, "2026-03", "2026-05", D(2026, 6, 30))
    assert finding.stops
    assert finding.months == ("2026-03", "2026-04", "2026-05")


def test_good_inputs_pass(good: Engine) -> None:
    found = findings(good, INPUTS)
    assert set(found) == set(BREAKS_INPUTS)
    assert [name for name, finding in found.items() if not finding.passed] == []


@pytest.mark.parametrize("rule", BREAKS_INPUTS)
def test_a_bad_input_is_found(engine: Engine, rule: str) -> None:
    insert(engine, TERMS)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.execute(text(BREAKS_INPUTS[rule]))
        connection.exec_driver_sql("RESET session_replication_role")
    (finding,) = [findings(engine, suites_of(rule))[rule]]
    assert not finding.passed
    assert finding.failing > 0
    shown = " ".join(f"{key} {value}" for row in finding.sample for key, value in row.items())
    assert "example.com" not in shown
    assert "Customer" not in shown


def test_a_rule_that_cannot_be_evaluated_is_no_failed_rule(
    database_url: URL, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE prepaid.transactions DROP COLUMN outcome CASCADE")
    with pytest.raises(RuntimeError, match="payment_records_get_an_outcome_in_time cannot be"):
        validation.validate(
            database_url,
            suites_of("payment_records_get_an_outcome_in_time"),
            run_id=RUN,
            as_of=SPAN.as_of,
        )
