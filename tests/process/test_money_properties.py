"""Step 3 against an independent calculation in whole minor units and fractions."""

import json
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import floor

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from prepaid_pipeline.database import queries
from tests.budget import examples
from tests.world import TODAY, World

RATES = {
    "none": "0",
    "five": "0.05",
    "local": "0.0725",
    "nineteen": "0.19",
    "other": "0.19",
    "third": "0.333333333333333",
}
EXPONENTS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}


@dataclass(frozen=True)
class Line:
    """``unit`` in minor units."""

    unit: int
    quantity: int
    tax_class: str
    includes_tax: bool
    recurring: bool

    @property
    def listed(self) -> int:
        return self.unit * self.quantity


@dataclass(frozen=True)
class Discount:
    percent: Decimal | None
    amount: int | None
    for_ever: bool


@dataclass(frozen=True)
class Case:
    currency: str
    exempt: bool
    lines: list[Line]
    discounts: list[Discount]

    def rate(self, line: Line) -> Fraction:
        return Fraction(0) if self.exempt else Fraction(RATES[line.tax_class])

    def share(self, line: Line) -> Fraction:
        """The part of an amount that is tax."""
        rate = self.rate(line)
        return rate / (1 + rate) if line.includes_tax else rate


@dataclass(frozen=True)
class Charge:
    """One line as it is charged, in minor units."""

    net: int
    tax: int
    discount: int
    recurring: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lines = st.builds(
        Line,
        st.one_of(st.integers(0, 10**6), st.integers(0, 10**13)),
        st.integers(1, 30),
        st.sampled_from(sorted(RATES)),
        st.booleans(),
        st.booleans(),
    )
    first, *rest = draw(st.lists(lines, min_size=1, max_size=6))
    percent = st.decimals("0.01", 100, places=2).map(lambda p: Discount(p, None, False))
    amount = st.integers(1, 10**7).map(lambda a: Discount(None, a, False))
    discounts = draw(st.lists(st.one_of(percent, amount), max_size=3))
    return Case(
        draw(st.sampled_from(sorted(EXPONENTS))),
        draw(st.booleans()),
        [Line(first.unit, first.quantity, first.tax_class, first.includes_tax, True), *rest],
        [Discount(d.percent, d.amount, draw(st.booleans())) for d in discounts],
    )


def half_up(exact: Fraction) -> int:
    return floor(exact + Fraction(1, 2))


def discounted(case: Case, discounts: list[Discount]) -> list[int]:
    """What each line's discount is."""
    percent = min(sum((Fraction(d.percent) for d in discounts if d.percent), Fraction(0)), 100)
    left = sum(d.amount for d in discounts if d.amount)
    found = []
    for line in case.lines:
        by_percent = half_up(line.listed * percent / 100) if line.recurring else 0
        by_amount = min(line.listed - by_percent, left) if line.recurring else 0
        left -= by_amount
        found.append(by_percent + by_amount)
    return found


def expected(case: Case) -> list[Charge]:
    all_of_them = discounted(case, case.discounts)
    lasting = discounted(case, [d for d in case.discounts if d.for_ever])
    exact = [
        (line.listed - off) * case.share(line)
        for line, off in zip(case.lines, all_of_them, strict=True)
    ]
    taxes = [floor(tax) for tax in exact]
    for group in {(line.tax_class, line.includes_tax) for line in case.lines}:
        places = [
            n for n, line in enumerate(case.lines) if (line.tax_class, line.includes_tax) == group
        ]
        left = half_up(sum((exact[n] for n in places), Fraction(0))) - sum(taxes[n] for n in places)
        for n in sorted(places, key=lambda n: taxes[n] - exact[n])[:left]:
            taxes[n] += 1
    charges = []
    for line, off, off_for_ever, tax in zip(case.lines, all_of_them, lasting, taxes, strict=True):
        net = line.listed - off - (tax if line.includes_tax else 0)
        rest = line.listed - off_for_ever
        gross = half_up(rest / (1 + case.rate(line))) if line.includes_tax else rest
        recurring = (net if off == off_for_ever else gross) if line.recurring else 0
        charges.append(Charge(net, tax, off, recurring))
    return charges


@pytest.fixture(scope="module")
def taxed(module_world: World) -> World:
    for name, rate in RATES.items():
        module_world.tax_rate(rate, tax_class=name)
    return module_world


# More than all of it for ever, on net and on inclusive lines: rare by chance.
_MORE_THAN_ALL = Case(
    "EUR",
    False,
    [Line(1000, 1, "nineteen", False, True), Line(999, 3, "nineteen", True, True)],
    [Discount(Decimal(60), None, True), Discount(Decimal(60), None, True), Discount(None, 5, True)],
)


@hypothesis_settings(max_examples=examples(100), deadline=None)
@given(case=cases())
@example(case=_MORE_THAN_ALL)
def test_charges_are_what_the_rules_say(taxed: World, case: Case) -> None:
    found = calculated(taxed, case)
    assert found == expected(case)
    require_what_always_holds(case, found)


def require_what_always_holds(case: Case, found: list[Charge]) -> None:
    """Said without any of the calculation above."""
    for line, charge in zip(case.lines, found, strict=True):
        assert min(charge.net, charge.tax, charge.discount, charge.recurring) >= 0
        paid = charge.net + (charge.tax if line.includes_tax else 0)
        assert paid == line.listed - charge.discount
        exact = (line.listed - charge.discount) * case.share(line)
        assert abs(charge.tax - exact) < 1
        if not line.recurring:
            assert (charge.discount, charge.recurring) == (0, 0)
    for tax_class, includes_tax in {(line.tax_class, line.includes_tax) for line in case.lines}:
        group = [
            (line, charge)
            for line, charge in zip(case.lines, found, strict=True)
            if (line.tax_class, line.includes_tax) == (tax_class, includes_tax)
        ]
        amount = sum(line.listed - charge.discount for line, charge in group)
        exact = amount * case.share(group[0][0])
        assert sum(charge.tax for _, charge in group) == half_up(exact)


def calculated(world: World, case: Case) -> list[Charge]:
    """Step 3's own statement over a plan with these lines, rolled back."""
    unit = Decimal(1).scaleb(-EXPONENTS[case.currency])
    plan, *addons = case.lines
    values = {
        "currency": case.currency,
        "price": plan.unit * unit,
        "quantity": plan.quantity,
        "includes_tax": plan.includes_tax,
        "tax_class": plan.tax_class,
        "exempt": case.exempt,
        "addons": json.dumps(
            [
                {
                    "addon_code": f"{n:03}",
                    "name": f"a{n}",
                    "price": str(line.unit * unit),
                    "quantity": line.quantity,
                    "includes_tax": line.includes_tax,
                    "recurring": line.recurring,
                    "tax_class": line.tax_class,
                }
                for n, line in enumerate(addons)
            ]
        ),
        "discounts": json.dumps(
            [
                {
                    "percent": d.percent and str(d.percent),
                    "amount": d.amount and str(d.amount * unit),
                    "for_ever": d.for_ever,
                }
                for d in case.discounts
            ]
        )
        if case.discounts
        else None,
    }
    statement = queries.statement("steps/03_calculate_invoice_totals", "calculate")
    with world.engine.connect() as connection:
        service_plan = connection.execute(_PROCESSING, values).scalar_one()
        connection.execute(text("UPDATE prepaid.service_plans SET status = 'Processing'"))
        statement.execute(connection, {"plans": [service_plan], "as_of": TODAY})
        rows = connection.execute(
            text(
                "SELECT net, tax, discount, recurring_net FROM prepaid.charges ORDER BY line_number"
            )
        ).all()
        connection.rollback()
    return [Charge(*(int(amount / unit) for amount in row)) for row in rows]


_PROCESSING = text("""
WITH c AS (
    INSERT INTO prepaid.customers (customer_ref, name, country, currency)
    VALUES ('x', 'x', 'US', :currency) RETURNING customer_id
), l AS (
    INSERT INTO prepaid.plans (plan_code, name, term_months) VALUES ('x', 'x', 1) RETURNING plan_id
), s AS (
    INSERT INTO prepaid.subscriptions
        (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
    SELECT 'x', customer_id, plan_id, '2026-11-02', '2026-11-02', true FROM c, l RETURNING *
)
INSERT INTO prepaid.service_plans (
    subscription_id, customer_id, plan_id, origin, kind, status, start_date, end_date,
    planned_start, anchor_date, term_months, term_days, currency, price, price_includes_tax,
    quantity, addons, discounts, country, tax_exempt, plan_name, tax_class)
SELECT subscription_id, customer_id, plan_id, 'pipeline', 'new', 'Pending', '2026-11-02',
       '2026-12-02', '2026-11-02', '2026-11-02', 1, 0, :currency, :price, :includes_tax,
       :quantity, CAST(:addons AS jsonb), CAST(:discounts AS jsonb), 'US', :exempt, 'x', :tax_class
FROM s RETURNING service_plan_id
""")
