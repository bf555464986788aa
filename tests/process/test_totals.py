"""Step 3: tax per (class, rate) group, rounded half up once, allocated by largest remainder."""

import json
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from prepaid_pipeline import queries
from tests.world import TODAY, World, context

# Worked examples of EN 16931's rule: the tax of a group is its net times the rate, rounded once.
# Each line is (net, tax class); the rates are those of _RATES.
_RATES = {"five": "0.05", "ten": "0.10", "fifteen": "0.15", "seven": "0.07", "zero": "0"}
_EXAMPLES: list[tuple[str, list[tuple[str, str]], list[str]]] = [
    ("USD", [("45.30", "five"), ("33.45", "ten")], ["2.27", "3.35"]),
    ("USD", [("1091.50", "fifteen")], ["163.73"]),
    ("USD", [("0.43", "fifteen"), ("4.84", "fifteen")], ["0.06", "0.73"]),
    ("USD", [("17.50", "seven")] * 4, ["1.23", "1.23", "1.22", "1.22"]),
    ("JPY", [("1091", "ten"), ("5", "ten")], ["109", "1"]),
    ("KWD", [("0.333", "fifteen"), ("0.333", "fifteen")], ["0.050", "0.050"]),
    ("USD", [("10.00", "zero"), ("0.00", "seven")], ["0.00", "0.00"]),
]


def charges(world: World, currency: str, lines: list[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Invoice one purchase whose plan is the first line and whose add-ons are the others."""
    for name, rate in _RATES.items():
        world.tax_rate(rate, tax_class=name)
    (price, tax_class), *rest = lines
    plan = world.plan(price, currency=currency, tax_class=tax_class)
    addons = tuple(world.addon(net, currency=currency, tax_class=cls) for net, cls in rest)
    world.subscription(world.customer(currency=currency), plan, addons=addons)
    world.open()
    return world.rows("SELECT net, tax FROM prepaid.invoice_lines ORDER BY line_number")


@pytest.mark.parametrize(("currency", "lines", "taxes"), _EXAMPLES)
def test_worked_examples(
    world: World, currency: str, lines: list[tuple[str, str]], taxes: list[str]
) -> None:
    found = charges(world, currency, lines)
    assert [str(tax) for _, tax in found] == taxes
    assert [str(net) for net, _ in found] == [net for net, _ in lines]
    net, tax, total = world.rows("SELECT net, tax, total FROM prepaid.invoices")[0]
    assert (net, tax) == (sum(n for n, _ in found), sum(Decimal(t) for t in taxes))
    assert net + tax == total


def test_tax_of_five_cents_over_three_equal_lines(world: World) -> None:
    """0.05 over three equal lines: 0.02, 0.02, 0.01."""
    found = charges(world, "USD", [("0.33", "five")] * 3)
    assert [str(tax) for _, tax in found] == ["0.02", "0.02", "0.01"]


def test_exempt_is_not_zero(world: World) -> None:
    world.subscription(world.customer(tax_exempt=True, country="DE"), world.plan())
    world.open()
    assert world.rows("SELECT tax_rate, tax FROM prepaid.invoice_lines") == [(None, 0)]
    assert world.rows("SELECT tax_note FROM prepaid.invoices") == [
        ("Tax-exempt customer: no tax charged",)
    ]


def test_the_rate_is_the_one_of_the_invoice_date(world: World) -> None:
    world.tax_rate("0.19", valid_from="2020-01-01")
    world.tax_rate("0.16", valid_from="2026-11-02")
    world.tax_rate("0.25", valid_from="2026-11-03")
    world.subscription(world.customer(), world.plan())
    world.open()
    assert [str(row[0]) for row in world.rows("SELECT tax FROM prepaid.invoices")] == ["1.60"]


def test_a_one_time_addon_is_charged_with_the_first_term_only(world: World) -> None:
    world.tax_rate("0")
    fee = world.addon("49.00", recurring=False)
    world.subscription(world.customer(), world.plan(), addons=(fee,))
    (plan,) = world.open()
    assert world.rows("SELECT net_amount, recurring_amount FROM prepaid.service_plans") == [
        (Decimal("59.00"), Decimal("10.00"))
    ]
    world.pay_and_approve(plan)
    world.settle()
    later = TODAY.replace(month=12)
    _, renewal = world.open(context(later))
    assert world.rows(
        "SELECT net_amount FROM prepaid.service_plans WHERE service_plan_id = :p", p=renewal
    ) == [(Decimal("10.00"),)]


_amount = st.integers(0, 10**7).map(lambda cents: Decimal(cents) / 100)


@pytest.fixture(scope="module")
def many_classes(module_world: World) -> World:
    for name, rate in _RATES.items():
        module_world.tax_rate(rate, tax_class=name)
    return module_world


@hypothesis_settings(
    max_examples=60,
    deadline=None,
)
@given(lines=st.lists(st.tuples(_amount, st.sampled_from(sorted(_RATES))), min_size=1, max_size=8))
def test_line_taxes_add_up_to_the_group_tax(
    many_classes: World, lines: list[tuple[Decimal, str]]
) -> None:
    """Against an independent calculation; each line is within one cent of its own exact tax."""
    taxes = _calculated(many_classes.engine, lines)
    for name, rate in _RATES.items():
        group = [(net, tax) for (net, cls), tax in zip(lines, taxes, strict=True) if cls == name]
        exact = sum((net for net, _ in group), Decimal(0)) * Decimal(rate)
        assert sum((tax for _, tax in group), Decimal(0)) == exact.quantize(
            Decimal("0.01"), ROUND_HALF_UP
        )
        for net, tax in group:
            floor = (net * Decimal(rate)).quantize(Decimal("0.01"), ROUND_DOWN)
            assert tax in (floor, floor + Decimal("0.01"))


def _calculated(engine: Engine, lines: list[tuple[Decimal, str]]) -> list[Decimal]:
    """Step 3's own statement over a plan with these lines, rolled back."""
    (price, tax_class), *rest = lines
    addons = [
        {"addon_code": f"{n:03}", "name": f"a{n}", "price": str(net), "recurring": True,
         "tax_class": cls}
        for n, (net, cls) in enumerate(rest)
    ]  # fmt: skip
    with engine.connect() as connection:
        plan = connection.execute(
            text(
                "WITH c AS (INSERT INTO prepaid.customers (customer_ref, name, country, currency)"
                " VALUES ('x', 'x', 'US', 'USD') RETURNING customer_id), l AS (INSERT INTO"
                " prepaid.plans (plan_code, name, term_months) VALUES ('x', 'x', 1) RETURNING"
                " plan_id), s AS (INSERT INTO prepaid.subscriptions (subscription_ref, customer_id,"
                " plan_id, started_on, anchor_date, auto_renew) SELECT 'x', customer_id, plan_id,"
                " '2026-11-02', '2026-11-02', true FROM c, l RETURNING *) INSERT INTO"
                " prepaid.service_plans (subscription_id, customer_id, plan_id, origin, kind,"
                " status, start_date, end_date, planned_start, anchor_date, term_months, term_days,"
                " currency, price, addons, country, tax_exempt, plan_name, tax_class) SELECT"
                " subscription_id, customer_id, plan_id, 'pipeline', 'new', 'Pending',"
                " '2026-11-02', '2026-12-02', '2026-11-02', '2026-11-02', 1, 0, 'USD', :price,"
                " CAST(:addons AS jsonb), 'US', false, 'x', :tax_class FROM s"
                " RETURNING service_plan_id"
            ),
            {"price": price, "addons": json.dumps(addons), "tax_class": tax_class},
        ).scalar_one()
        connection.execute(text("UPDATE prepaid.service_plans SET status = 'Processing'"))
        statement = queries.statement("renewal/03_calculate_invoice_totals", "calculate")
        statement.execute(connection, {"plans": [plan], "as_of": TODAY})
        taxes = connection.execute(text("SELECT tax FROM prepaid.charges ORDER BY line_number"))
        found = list(taxes.scalars())
        connection.rollback()
    return found
