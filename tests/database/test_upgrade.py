"""A database of the first release, with data in it, goes on where it was."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import URL, Engine

from prepaid_pipeline import checks, database, migrations, queries
from tests.world import World, context

_ROWS = """
INSERT INTO prepaid.tax_rates VALUES ('US', 'standard', 0.0725, '2020-01-01');
INSERT INTO prepaid.customers (customer_ref, name, email, country, currency)
    VALUES ('C1', 'Customer', 'someone@example.com', 'US', 'USD');
INSERT INTO prepaid.plans (plan_code, name, term_months) VALUES ('basic', 'Basic', 1);
INSERT INTO prepaid.plan_prices VALUES (1, 'USD', 10.00);
INSERT INTO prepaid.addons (addon_code, name, recurring)
    VALUES ('care', 'Care', true), ('setup', 'Setup', false);
INSERT INTO prepaid.addon_prices VALUES (1, 1, 0, 'USD', 2.00), (2, 1, 0, 'USD', 5.00);
INSERT INTO prepaid.subscriptions
    (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
    VALUES ('S1', 1, 1, '2026-11-02', '2026-11-02', true);
INSERT INTO prepaid.subscription_addons VALUES (1, 1), (1, 2);
INSERT INTO prepaid.service_plans (subscription_id, customer_id, plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, opened_on, currency,
    price, addons, customer_name, email, country, tax_exempt, plan_name, tax_class, retrieved_at,
    net_amount, recurring_amount)
    VALUES (1, 1, 1, 'pipeline', 'new', 'Pending', '2026-11-02', '2026-12-02', '2026-11-02',
    '2026-11-02', 1, 0, '2026-11-02', 'USD', 10.00, '[{"addon_code": "care", "name": "Care",
    "price": 2.00, "recurring": true, "tax_class": "standard"}, {"addon_code": "setup", "name":
    "Setup", "price": 5.00, "recurring": false, "tax_class": "standard"}]', 'Customer',
    'someone@example.com', 'US', false, 'Basic', 'standard', now(), 17.00, 12.00);
UPDATE prepaid.service_plans SET status = 'Processing';
INSERT INTO prepaid.charges VALUES
    (1, 1, 'Basic', 'USD', 10.00, 'standard', 0.0725, 0.72, '2026-11-02'),
    (1, 2, 'Care', 'USD', 2.00, 'standard', 0.0725, 0.15, '2026-11-02'),
    (1, 3, 'Setup', 'USD', 5.00, 'standard', 0.0725, 0.36, '2026-11-02');
"""
_INVOICED = """
INSERT INTO prepaid.invoice_series VALUES ('INV', 2026, 1);
INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net, tax,
    total, status, issued_on) VALUES ('INV-2026-000001', 1, 1, 'USD', 17.00, 1.23, 18.23, 'Open',
    '2026-11-02');
INSERT INTO prepaid.invoice_lines
    SELECT 1, line_number, description, net, tax_class, tax_rate, tax FROM prepaid.charges;
UPDATE prepaid.service_plans SET status = 'Pending', invoiced_at = now();
INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on)
    VALUES ('payment_verification', 1, 1, 'finance', '2026-11-02');
INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency, status,
    occurred_at, outcome, invoice_id) VALUES ('bank', 'p1', 'INV-2026-000001', 18.23, 'USD',
    'Success', '2026-11-02T10:00Z', 'matched', 1);
"""


@pytest.fixture
def first_release(cluster: URL) -> Iterator[Engine]:
    """A database as the first migration makes it."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    maintenance = cluster.render_as_string(hide_password=False)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        engine = database.engine_for(cluster.set(database=name))
        with engine.begin() as first:
            queries.statement("service/migrations", "make_schema").execute(first, {})
            migrations.run_file(first, "0001_foundation")
            first.exec_driver_sql(
                "CREATE TABLE prepaid.alembic_version (version_num varchar(32) PRIMARY KEY)"
            )
            first.exec_driver_sql("INSERT INTO prepaid.alembic_version VALUES ('0001')")
        yield engine
        engine.dispose()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("invoiced", [False, True])
def test_a_plan_under_way_goes_on(first_release: Engine, invoiced: bool) -> None:
    with first_release.begin() as connection:
        connection.exec_driver_sql(_ROWS + (_INVOICED if invoiced else ""))
    migrations.upgrade(first_release)
    migrations.require_current(first_release)

    world = World(first_release)
    world.open()
    if not invoiced:
        world.record(world.invoice(1))
        world.match()
    world.approve(1)
    world.settle()
    assert world.status(1) == "Active"
    assert world.rows(
        "SELECT description, quantity, unit_price, list_amount, discount, net, includes_tax"
        " FROM prepaid.invoice_lines ORDER BY line_number"
    ) == [("Basic", 1, 10, 10, 0, 10, False), ("Care", 1, 2, 2, 0, 2, False),
          ("Setup", 1, 5, 5, 0, 5, False)]  # fmt: skip
    assert world.rows("SELECT net_amount, recurring_amount FROM prepaid.service_plans") == [
        (17, 12)
    ]
    assert world.rows("SELECT net, tax, total, payable FROM prepaid.invoices") == [
        (17, world.sql("SELECT 1.23"), world.sql("SELECT 18.23"), world.sql("SELECT 18.23"))
    ]
    found = checks.run(first_release, context())
    told = {check.name: check.findings for check in found if check.findings}
    assert told == {}
