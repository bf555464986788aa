"""The sample: imports without a complaint and has every case that the process must cope with."""

import runpy
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

import prepaid_pipeline
from prepaid_pipeline.importer.loading import import_directory
from tests.importer.folders import rows

SAMPLE = Path(prepaid_pipeline.__file__).parent / "operations" / "sample"


@pytest.fixture(scope="module")
def engine(shared_engine: Engine) -> Engine:
    reports = import_directory(shared_engine, SAMPLE, as_of=date(2026, 11, 1), grace_days=7)
    assert [message for r in reports for message in (*r.errors, *r.differences)] == []
    assert [r.status for r in reports] == ["imported"] * 7
    return shared_engine


def test_the_script_makes_exactly_these_files(tmp_path: Path) -> None:
    runpy.run_path("scripts/make_sample.py")["main"](tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in SAMPLE.iterdir()}


# What it must hold: a query that counts, the smallest and the largest number.
DUE = "p.end_date BETWEEN '2026-10-27' AND '2026-11-08' AND p.status IN ('Active', 'Expired')"
TERMS = """prepaid.service_plans p JOIN prepaid.subscriptions s USING (subscription_id)
           JOIN prepaid.customers c ON c.customer_id = s.customer_id
           JOIN prepaid.plans l ON l.plan_id = s.plan_id"""
CONTENT = {
    "customers": ("prepaid.customers", 290, 310),
    "currencies": ("(SELECT DISTINCT currency FROM prepaid.customers) c", 3, 3),
    "terms that end in these days": (f"{TERMS} WHERE {DUE}", 60, 120),
    "purchases": (
        "prepaid.subscriptions s WHERE NOT EXISTS (SELECT FROM prepaid.service_plans p"
        " WHERE p.subscription_id = s.subscription_id)",
        12,
        12,
    ),
    "orders of returning customers": (
        f"{TERMS} WHERE p.status = 'Pending' AND p.kind = 'reactivation'",
        3,
        4,
    ),
    "customers who came back": (
        f"{TERMS} WHERE p.status <> 'Pending' AND p.kind = 'reactivation'",
        5,
        20,
    ),
    "customers who left": (
        "prepaid.subscriptions s WHERE NOT auto_renew AND NOT EXISTS (SELECT FROM"
        " prepaid.service_plans p WHERE p.subscription_id = s.subscription_id"
        " AND p.end_date > '2026-11-01')",
        15,
        60,
    ),
    "terms that were cancelled": (f"{TERMS} WHERE p.status = 'Cancelled'", 1, 5),
    "terms anchored on a 31st": (
        f"{TERMS} WHERE {DUE} AND extract(day FROM p.anchor_date) = 31",
        4,
        30,
    ),
    "weekly terms due": (f"{TERMS} WHERE {DUE} AND p.term_days = 7", 3, 20),
    "30-day terms due": (f"{TERMS} WHERE {DUE} AND p.term_days = 30", 3, 40),
    "quarterly terms due": (f"{TERMS} WHERE {DUE} AND p.term_months = 3", 1, 20),
    "yearly terms due": (f"{TERMS} WHERE {DUE} AND p.term_months = 12", 4, 20),
    "without e-mail, due": (f"{TERMS} WHERE {DUE} AND c.email IS NULL", 1, 1),
    "tax-exempt, due": (f"{TERMS} WHERE {DUE} AND c.tax_exempt", 2, 9),
    "without tax rate, due": (
        f"{TERMS} LEFT JOIN prepaid.tax_rates r ON r.country = c.country"
        f" WHERE {DUE} AND r.rate IS NULL",
        1,
        1,
    ),
    "without price, due": (
        f"{TERMS} WHERE {DUE} AND s.price IS NULL AND NOT EXISTS (SELECT FROM prepaid.plan_prices"
        " lp WHERE lp.plan_id = l.plan_id AND lp.currency = c.currency AND lp.price >= 0)",
        1,
        1,
    ),
    "a rate that changed": (
        "(SELECT FROM prepaid.tax_rates GROUP BY country, tax_class HAVING count(*) > 1) r",
        1,
        3,
    ),
    "one-time add-ons sold": (
        "prepaid.subscription_addons JOIN prepaid.addons USING (addon_id) WHERE NOT recurring",
        5,
        99,
    ),
    "plans sold more than once, due": (f"{TERMS} WHERE {DUE} AND s.quantity > 1", 1, 30),
    "add-ons sold more than once": ("prepaid.subscription_addons a WHERE quantity > 1", 1, 9),
    "prices that were raised": ("prepaid.plan_prices p WHERE valid_from = '2026-01-01'", 15, 30),
    "due, at a price with tax in it": (
        f"{TERMS} JOIN prepaid.plan_price_periods r ON r.plan_id = l.plan_id AND r.currency ="
        f" c.currency WHERE {DUE} AND r.includes_tax AND p.end_date >= r.valid_from"
        " AND p.end_date < r.valid_until",
        1,
        20,
    ),
    "discounts": ("prepaid.discounts d", 10, 30),
    "purchases with a discount": (
        "prepaid.discounts d WHERE terms = 3 AND NOT EXISTS (SELECT FROM prepaid.service_plans p"
        " WHERE p.subscription_id = d.subscription_id)",
        3,
        3,
    ),
    "discounts of an amount": ("prepaid.discounts d WHERE amount > 0", 2, 2),
    "exempt with a reason": ("prepaid.customers c WHERE tax_exempt_reason <> ''", 1, 1),
    # From the 27th on everything is due; what ended before was renewed, or its customer left.
    "missed in silence": (
        f"{TERMS} WHERE s.auto_renew AND s.cancelled_on IS NULL"
        " AND p.end_date < date '2026-11-01' - prepaid.days_within_term(7, p.term_days)"
        " AND NOT EXISTS (SELECT FROM prepaid.service_plans n WHERE n.subscription_id ="
        " p.subscription_id AND n.start_date >= p.end_date)",
        0,
        0,
    ),
    "terms off the calendar": (
        f"{TERMS} WHERE p.end_date <>"
        " prepaid.term_end(p.anchor_date, p.start_date, p.term_months, p.term_days)",
        0,
        0,
    ),
}


@pytest.mark.parametrize("what", CONTENT)
def test_the_sample_has(engine: Engine, what: str) -> None:
    source, least, most = CONTENT[what]
    ((count,),) = rows(engine, f"SELECT count(*) FROM {source}")  # noqa: S608
    assert least <= count <= most


def test_addresses_are_nobodys(engine: Engine) -> None:
    # RFC 2606 reserves these domains.
    query = "SELECT DISTINCT split_part(email, '@', 2) FROM prepaid.customers WHERE email <> ''"
    assert sorted(rows(engine, query)) == [("example.com",), ("example.org",)]
