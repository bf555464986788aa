"""A database of each release, with data in it, goes on where it was."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import migrations
from prepaid_pipeline.operations import invariants
from tests.database.releases import RELEASES, at_release, raise_to
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


# What a release brought, in its own words: each is there after the upgrade as it was.
_OF_RELEASE = {
    "0002": (
        "INSERT INTO prepaid.discounts (subscription_id, discount_code, name, percent, terms)"
        " VALUES (1, 'later', 'Later', 10, 0);"
        "INSERT INTO prepaid.requests (kind, subscription_id, asked_on, note, asked_by)"
        " VALUES ('change', 1, '2026-11-02', 'asked', 'somebody')",
        "SELECT (SELECT percent FROM prepaid.discounts), (SELECT note FROM prepaid.requests)",
        (10, "asked"),
    ),
    "0003": (
        "INSERT INTO prepaid.approval_limits VALUES ('USD', 1000);"
        "INSERT INTO prepaid.task_assignments (task_id, assigned_to, assigned_by)"
        " SELECT task_id, 'officer', 'lead' FROM prepaid.tasks",
        "SELECT (SELECT amount FROM prepaid.approval_limits),"
        " (SELECT max(assigned_to) FROM prepaid.task_assignments)",
        (1000, "officer"),
    ),
    "0004": (
        "INSERT INTO revenue.exchange_rates VALUES ('2026-10-01', 'USD', 'EUR', 0.9)",
        "SELECT rate, month::text FROM revenue.exchange_rates",
        ("0.9", "2026-10-01"),
    ),
}


@pytest.fixture
def first_release(cluster: URL) -> Iterator[Engine]:
    """A database as the first migration makes it."""
    with at_release(cluster, "0001") as engine:
        yield engine


@pytest.mark.parametrize(
    ("number", "invoiced"), [("0001", False), *((number, True) for number in RELEASES)]
)
def test_a_plan_under_way_goes_on(first_release: Engine, number: str, invoiced: bool) -> None:
    engine = first_release
    with engine.begin() as connection:
        connection.exec_driver_sql(_ROWS + (_INVOICED if invoiced else ""))
    there = []
    for name in RELEASES[1:]:
        if name > number:
            break
        raise_to(engine, name)
        if name in _OF_RELEASE:
            insert, select, expected = _OF_RELEASE[name]
            with engine.begin() as connection:
                connection.exec_driver_sql(insert)
            there.append((select, expected))
    migrations.upgrade(engine)
    migrations.require_current(engine)

    world = World(engine)
    for select, expected in there:
        assert [tuple(map(str, row)) for row in world.rows(select)] == [tuple(map(str, expected))]
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
    ) == [
        ("Basic", 1, 10, 10, 0, 10, False),
        ("Care", 1, 2, 2, 0, 2, False),
        ("Setup", 1, 5, 5, 0, 5, False),
    ]
    assert world.rows("SELECT net_amount, recurring_amount FROM prepaid.service_plans") == [
        (17, 12)
    ]
    assert world.rows("SELECT net, tax, total, payable FROM prepaid.invoices") == [
        (17, world.sql("SELECT 1.23"), world.sql("SELECT 18.23"), world.sql("SELECT 18.23"))
    ]
    found = invariants.run(engine, context())
    told = {check.name: check.findings for check in found if check.findings}
    assert told == {}
    # What the older releases logged is sealed with what has come since.
    assert seals.unsealed(engine) == 0
    assert seals.verify(engine) == []
