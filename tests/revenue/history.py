"""Terms for revenue tests, written straight into the tables, and the figures by plain counting."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from dateutil.relativedelta import relativedelta
from sqlalchemy import Engine, text

from prepaid_pipeline.revenue import figures
from prepaid_pipeline.revenue.figures import Kept, Span, last_day

RUN = "run-of-a-test"
_CLEAR = (
    "revenue.mrr",
    "revenue.mrr_by_country",
    "revenue.mrr_movements",
    "revenue.mrr_bridge",
    "revenue.plan_activations",
    "revenue.activations_by_country",
    "revenue.payment_reversals",
    "revenue.credit_notes_issued",
    "revenue.renewal_outcomes",
    "revenue.retention",
    "revenue.cohorts",
    "revenue.deferred_revenue",
    "revenue.reconciliation",
    "revenue.months",
    "prepaid.service_plans",
    "prepaid.subscriptions",
    "prepaid.customers",
)
_INSERT = """
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:terms AS jsonb)) t (
        number integer, customer integer, start_date date, months integer, days integer,
        end_date date, price numeric, one_time numeric, currency text, kind text, status text,
        origin text, activated_on date, full_end_date date,
        country text)
), customers AS (
    INSERT INTO prepaid.customers (customer_ref, name, country, currency)
    SELECT DISTINCT ON (customer) 'C' || customer, 'Customer', 'US', currency FROM given
    ON CONFLICT (customer_ref) DO UPDATE SET name = excluded.name
    RETURNING customer_id, customer_ref
), plans AS (
    INSERT INTO prepaid.plans (plan_code, name, term_months, term_days)
    SELECT DISTINCT 'P' || months || 'M' || days || 'D', 'Plan', months, days FROM given
    ON CONFLICT (plan_code) DO UPDATE SET name = excluded.name
    RETURNING plan_id, plan_code
), subscriptions AS (
    INSERT INTO prepaid.subscriptions
        (subscription_ref, customer_id, plan_id, started_on, anchor_date, auto_renew)
    SELECT 'S' || number || '-' || start_date || '-' || customer || md5(random()::text),
           customer_id, plan_id, start_date, start_date, true
    FROM given JOIN customers ON customer_ref = 'C' || customer
    JOIN plans ON plan_code = 'P' || months || 'M' || days || 'D'
    RETURNING subscription_id, subscription_ref, customer_id, plan_id
)
INSERT INTO prepaid.service_plans (subscription_id, customer_id, plan_id, origin, kind, status,
    start_date, end_date, planned_start, anchor_date, term_months, term_days, currency, price,
    net_amount, recurring_amount, activated_on, full_end_date, country)
SELECT s.subscription_id, s.customer_id, s.plan_id, g.origin, g.kind, g.status, g.start_date,
       g.end_date, g.start_date, g.start_date, g.months, g.days, g.currency, g.price,
       g.price + g.one_time, g.price, g.activated_on, g.full_end_date, g.country
FROM given g JOIN subscriptions s
    ON s.subscription_ref LIKE 'S' || g.number || '-' || g.start_date || '-' || g.customer || '%'
    AND s.customer_id = (SELECT customer_id FROM customers WHERE customer_ref = 'C' || g.customer)
"""


@dataclass(frozen=True)
class Term:
    """An imported term; it ends when its length says so unless ``end`` does: an earlier end is a
    cut in its middle.
    """

    start: date
    price: str = "10.00"
    months: int = 1
    days: int = 0
    customer: int = 1
    end: date | None = None
    currency: str = "USD"
    kind: str = "new"
    status: str = "Active"
    one_time: str = "0"
    activated_on: date | None = None
    country: str | None = "US"

    @property
    def full_end(self) -> date:
        return self.start + relativedelta(months=self.months, days=self.days)

    @property
    def end_date(self) -> date:
        return self.end or self.full_end

    @property
    def activated(self) -> date | None:
        return None if self.status == "Pending" else self.activated_on or self.start

    @property
    def monthly(self) -> Fraction:
        length = Fraction(self.months) if self.months else Fraction(self.days * 12 * 100, 36525)
        return Fraction(self.price) / length


def weekly(start: date, **other: Any) -> Term:
    return Term(start, months=0, days=7, **other)


def insert(engine: Engine, terms: Iterable[Term]) -> None:
    rows = [
        {
            **asdict(term),
            "number": number,
            "start_date": term.start,
            "end_date": term.end_date,
            "activated_on": term.activated,
            "origin": "imported",
            "full_end_date": term.full_end if term.end_date < term.full_end else None,
        }
        for number, term in enumerate(terms)
    ]
    with engine.begin() as connection:
        connection.execute(text(_INSERT), {"terms": json.dumps(rows, default=str)})


def clear(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in _CLEAR:
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608


def publish(
    engine: Engine, first: str, last: str, as_of: date | None = None, *, replay: bool = False
) -> list[Kept]:
    """Stage and publish without validation; the months that were left alone."""
    first_month, last_month = date.fromisoformat(f"{first}-01"), date.fromisoformat(f"{last}-01")
    span = Span(first_month, last_month, as_of or last_day(last_month))
    with figures.one_at_a_time(engine):
        figures.stage(engine, span, RUN)
        return figures.publish(engine, RUN, replay=replay)


def rows(engine: Engine, statement: str, **params: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), params)]


def mrr(engine: Engine, month: str, currency: str = "USD") -> tuple[int, Decimal]:
    """Active plans and MRR of a month, the latter rounded to cents as people see it."""
    ((plans, amount),) = rows(
        engine,
        "SELECT coalesce(sum(active_plans), 0)::integer, round(coalesce(sum(mrr), 0), 2)"
        " FROM revenue.mrr WHERE month = CAST(:month AS date) AND currency = :currency",
        month=f"{month}-01",
        currency=currency,
    )
    return plans, amount


def movements(engine: Engine, month: str) -> dict[str, tuple[int, Decimal]]:
    found = rows(
        engine,
        "SELECT movement, customers, round(amount, 2) FROM revenue.mrr_movements"
        " WHERE month = CAST(:month AS date)",
        month=f"{month}-01",
    )
    return {movement: (customers, amount) for movement, customers, amount in found}


Balance = dict[tuple[int, str], Fraction]


def counted_balances(terms: Sequence[Term], days: Sequence[date]) -> Iterator[Balance]:
    """Each customer's MRR on each day, by looking at every term on every day."""
    for day in days:
        balance: Balance = defaultdict(Fraction)
        for term in terms:
            if term.activated and term.start <= day < term.end_date:
                balance[term.customer, term.currency] += term.monthly
        yield balance


def counted_movements(balances: Sequence[Balance]) -> list[dict[tuple[str, str], Any]]:
    """Per day: (currency, movement) -> [customers, amount], from one balance to the next."""
    had: set[tuple[int, str]] = set()
    before: Balance = {}
    result = []
    for after in balances:
        moved: dict[tuple[str, str], Any] = defaultdict(lambda: [0, Fraction(0)])
        for key in before.keys() | after.keys():
            old, new = before.get(key, Fraction(0)), after.get(key, Fraction(0))
            if old == new:
                continue
            if old == 0:
                movement = "reactivation" if key in had else "new"
            elif new == 0:
                movement = "churn"
            else:
                movement = "expansion" if new > old else "contraction"
            entry = moved[key[1], movement]
            entry[0] += 1
            entry[1] += new - old
        had |= {key for key, amount in after.items() if amount}
        before = after
        result.append(dict(moved))
    return result
