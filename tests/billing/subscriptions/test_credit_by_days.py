"""The credit for unused days against a calculation of its own, for random invoices and days."""

import json
from datetime import date, timedelta
from fractions import Fraction

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.budget import examples
from tests.world import World

START = date(2026, 1, 31)
_LINES = st.lists(
    st.tuples(
        st.integers(0, 2_000_000),  # net, in the smallest unit
        st.sampled_from(["0", "0.05", "0.0725", "0.19", None]),
        st.booleans(),  # recurring; the first line, the plan's own, always is
    ),
    min_size=1,
    max_size=6,
)
Line = tuple[int, str | None, bool]


def half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def shared_out(exact: list[Fraction]) -> list[int]:
    """Each amount rounded so that they add up to their sum rounded half up: largest remainder."""
    floors = [value.numerator // value.denominator for value in exact]
    left = half_up(sum(exact, Fraction(0))) - sum(floors)
    by_remainder = sorted(range(len(exact)), key=lambda n: (floors[n] - exact[n], n))
    return [floor + (n in by_remainder[:left]) for n, floor in enumerate(floors)]


def by_rate(lines: list[Line], exact: list[Fraction]) -> list[int]:
    found = [0] * len(lines)
    for rate in {line[1] for line in lines}:
        members = [n for n, line in enumerate(lines) if line[1] == rate]
        for n, tax in zip(members, shared_out([exact[n] for n in members]), strict=True):
            found[n] = tax
    return found


def invoiced(lines: list[Line]) -> list[int]:
    return by_rate(lines, [Fraction(net) * Fraction(rate or 0) for net, rate, _ in lines])


def expected(lines: list[Line], taxes: list[int], unused: int, days: int) -> list[tuple[int, ...]]:
    """Line number, net and tax of what is credited, in the smallest unit."""
    kept = [n for n, line in enumerate(lines) if n == 0 or line[2] or unused == days]
    share = Fraction(unused, days)
    nets = [half_up(lines[n][0] * share) for n in kept]
    credited = by_rate([lines[n] for n in kept], [taxes[n] * share for n in kept])
    rows = zip(kept, nets, credited, strict=True)
    return [(n + 1, net, tax) for n, net, tax in rows if net or tax]


_TERM = """
WITH someone AS (
    INSERT INTO prepaid.customers (customer_ref, name, country, currency)
    VALUES ('random', 'Random', 'US', :currency) RETURNING customer_id
), sold AS (
    INSERT INTO prepaid.plans (plan_code, name, term_days) VALUES ('random', 'Random', :days)
    RETURNING plan_id
), subscribed AS (
    INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on,
                                       anchor_date, auto_renew)
    SELECT 'random', customer_id, plan_id, :start, :start, true FROM someone, sold
    RETURNING subscription_id
), term AS (
    INSERT INTO prepaid.service_plans (
        subscription_id, customer_id, plan_id, origin, kind, status, start_date, end_date,
        planned_start, anchor_date, term_months, term_days, currency, addons, net_amount,
        recurring_amount, activated_on)
    SELECT subscription_id, customer_id, plan_id, 'pipeline', 'new', 'Active', :start, :until,
           :start, :start, 0, :days, :currency, CAST(:addons AS jsonb), 0, 0, :start
    FROM subscribed, someone, sold RETURNING service_plan_id
), invoice AS (
    INSERT INTO prepaid.invoices (invoice_number, service_plan_id, customer_id, currency, net, tax,
                                  total, status, issued_on, paid_on)
    SELECT 'INV-2026-999999', service_plan_id, customer_id, :currency, 0, 0, 0, 'Paid', :start,
           :start
    FROM term, someone RETURNING invoice_id
), lines AS (
    INSERT INTO prepaid.invoice_lines (
        invoice_id, line_number, description, net, tax_class, tax_rate, tax, quantity, unit_price,
        list_amount, discount, includes_tax)
    SELECT invoice_id, l.number, 'line', l.net, 'standard', l.rate, l.tax, 1, l.net, l.net, 0,
           false
    FROM invoice, jsonb_to_recordset(CAST(:lines AS jsonb)) l (number integer, net numeric,
                                                              rate numeric, tax numeric)
)
SELECT service_plan_id FROM term
"""
_CREDIT = """
SELECT line_number, net * CAST(:units AS numeric), tax * CAST(:units AS numeric)
FROM prepaid.unused_credit(:plan, :day, :day)
"""


@hypothesis_settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lines=_LINES,
    days=st.integers(1, 800),
    used=st.integers(0, 800),
    currency=st.sampled_from([("USD", 2), ("JPY", 0), ("KWD", 3)]),
)
def test_any_invoice_on_any_day(
    module_world: World, lines: list[Line], days: int, used: int, currency: tuple[str, int]
) -> None:
    used = min(used, days)
    code, exponent = currency
    units, taxes = 10**exponent, invoiced(lines)
    written = [
        {
            "number": n + 1,
            "net": f"{net / units:.{exponent}f}",
            "rate": rate,
            "tax": f"{tax / units:.{exponent}f}",
        }
        for n, ((net, rate, _), tax) in enumerate(zip(lines, taxes, strict=True))
    ]
    addons = [{"name": "x", "recurring": recurring} for *_, recurring in lines[1:]]
    with module_world.engine.connect() as connection:
        # The term is not sold here, only credited: it comes past the steps and their triggers.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        plan = connection.execute(
            text(_TERM),
            {
                "currency": code,
                "days": days,
                "start": START,
                "until": START + timedelta(days),
                "addons": json.dumps(addons),
                "lines": json.dumps(written),
            },
        ).scalar_one()
        asked = {"plan": plan, "day": START + timedelta(used), "units": units}
        found = [tuple(map(int, row)) for row in connection.execute(text(_CREDIT), asked)]
        connection.rollback()
    unused = days - used
    assert found == (expected(lines, taxes, unused, days) if unused else [])
    if unused == days:
        assert sum(net for _, net, _ in found) == sum(net for net, *_ in lines)
        assert sum(tax for *_, tax in found) == sum(taxes)
