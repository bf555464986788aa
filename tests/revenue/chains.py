"""Subscriptions with their terms one after another, written straight into the tables."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from itertools import count

from dateutil.relativedelta import relativedelta
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from tests.revenue import history

GRACE_DAYS = 7
FIRST, MONTHS = date(2024, 1, 1), 16
LENGTHS = ((1, 0), (1, 0), (3, 0), (12, 0), (0, 7), (0, 30))
_INSERT = """
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:links AS jsonb)) t (
        id bigint, previous bigint, chain integer, customer integer, start_date date,
        end_date date, full_end_date date, months integer, days integer, price numeric,
        currency text, country text, kind text, status text, activated_on date,
        cancelled_on date, credit numeric, credited_on date)
), customers AS (
    INSERT INTO prepaid.customers (customer_ref, name, country, currency)
    SELECT DISTINCT ON (customer) 'C' || customer, 'Customer', country, currency FROM given
    RETURNING customer_id, customer_ref
), plans AS (
    INSERT INTO prepaid.plans (plan_code, name, term_months, term_days)
    SELECT DISTINCT 'P' || months || 'M' || days || 'D', 'Plan', months, days FROM given
    ON CONFLICT (plan_code) DO UPDATE SET name = excluded.name
    RETURNING plan_id, plan_code
), subscriptions AS (
    INSERT INTO prepaid.subscriptions (subscription_ref, customer_id, plan_id, started_on,
                                       anchor_date, auto_renew, cancelled_on)
    SELECT DISTINCT ON (chain) 'S' || chain, customer_id, plan_id, start_date, start_date, true,
           cancelled_on
    FROM given JOIN customers ON customer_ref = 'C' || customer
    JOIN plans ON plan_code = 'P' || months || 'M' || days || 'D'
    ORDER BY chain, start_date, id
    RETURNING subscription_id, subscription_ref
), terms AS (
    INSERT INTO prepaid.service_plans (service_plan_id, previous_plan_id, subscription_id,
        customer_id, plan_id, origin, kind, status, start_date, end_date, planned_start,
        anchor_date, term_months, term_days, currency, country, price, net_amount,
        recurring_amount, activated_on, full_end_date)
    OVERRIDING SYSTEM VALUE
    SELECT id, previous, subscription_id, customer_id, plan_id, 'imported', kind, status,
           start_date, end_date, start_date, start_date, months, days, currency, country, price,
           price, price, activated_on, full_end_date
    FROM given JOIN customers ON customer_ref = 'C' || customer
    JOIN plans ON plan_code = 'P' || months || 'M' || days || 'D'
    JOIN subscriptions ON subscription_ref = 'S' || chain
    ORDER BY id
)
INSERT INTO prepaid.credit_notes (credit_note_number, service_plan_id, customer_id, currency, net,
                                  tax, total, reason, issued_on, issued_by)
SELECT 'CN-' || id, id, customer_id, currency, credit, 0, credit, 'cancellation', credited_on,
       'test'
FROM given JOIN customers ON customer_ref = 'C' || customer WHERE credit > 0
"""


@dataclass(frozen=True)
class Link:
    """One imported term of a chain. ``cut_to``: it ends there, by a change (``followed`` by the
    term that starts there) or a cancellation at once; ``credit`` is what the credit note of
    ``credited_on`` gives back.
    """

    start: date
    months: int = 1
    days: int = 0
    price: str = "10.00"
    kind: str = "new"
    activated_on: date | None = None
    cut_to: date | None = None
    followed: bool = False
    credit: str = "0"
    credited_on: date | None = None

    @property
    def full_end(self) -> date:
        return self.start + relativedelta(months=self.months, days=self.days)

    @property
    def end(self) -> date:
        return self.cut_to or self.full_end

    @property
    def activated(self) -> date:
        return self.activated_on or self.start

    @property
    def status(self) -> str:
        return "Cancelled" if self.cut_to and not self.followed else "Expired"

    @property
    def plan_code(self) -> str:
        return f"P{self.months}M{self.days}D"

    @property
    def grace(self) -> timedelta:
        return timedelta(days=min(GRACE_DAYS, self.days // 2) if self.days else GRACE_DAYS)

    def term(self, customer: int, currency: str) -> history.Term:
        """The same as the other tests' terms have it."""
        return history.Term(
            self.start,
            self.price,
            self.months,
            self.days,
            customer,
            self.cut_to,
            currency,
            self.kind,
            self.status,
            activated_on=self.activated,
        )


@dataclass(frozen=True)
class Chain:
    """One subscription of one customer."""

    links: tuple[Link, ...]
    customer: int = 1
    currency: str = "USD"
    country: str = "US"
    cancelled_on: date | None = None


def insert(engine: Engine, chains: Sequence[Chain]) -> None:
    """Into empty tables of customers, subscriptions and terms."""
    rows, ids = [], count(1)
    for number, chain in enumerate(chains):
        previous = None
        for link in chain.links:
            rows.append(
                {
                    **asdict(link),
                    "id": next(ids),
                    "previous": previous,
                    "chain": number,
                    "customer": chain.customer,
                    "currency": chain.currency,
                    "country": chain.country,
                    "cancelled_on": chain.cancelled_on,
                    "start_date": link.start,
                    "end_date": link.end,
                    "status": link.status,
                    "full_end_date": link.full_end if link.cut_to else None,
                    "activated_on": link.activated,
                }
            )
            previous = rows[-1]["id"]
    with engine.begin() as connection:
        connection.execute(text(_INSERT), {"links": json.dumps(rows, default=str)})


def clear(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("DELETE FROM prepaid.tasks; DELETE FROM prepaid.credit_notes")
    history.clear(engine)


@st.composite
def links(draw: st.DrawFn) -> tuple[Link, ...]:
    """Up to five terms: in time, in grace or after a gap; served, cut by a change or cancelled."""
    made: list[Link] = []
    start = FIRST + timedelta(days=draw(st.integers(0, 31 * MONTHS)))
    kind = "new"
    for _ in range(draw(st.integers(1, 5))):
        months, days = draw(st.sampled_from(LENGTHS))
        price = str(draw(st.decimals(0, 999, places=2)))
        early = draw(st.sampled_from([0, 0, 0, 1, 10])) if kind in ("new", "renewal") else 0
        link = Link(start, months, days, price, kind, start - timedelta(days=early))
        if kind == "renewal" and start == made[-1].end:
            late = draw(st.sampled_from([0, 0, 1, made[-1].grace.days]))
            if late:
                link = replace(link, activated_on=start + timedelta(days=late))
        link = draw(cuts(link))
        made.append(link)
        if link.cut_to and link.followed:
            start, kind = link.cut_to, "change"
            continue
        gap = draw(st.sampled_from([None, 0, 0, 0, 2, 20, 50]))
        if gap is None or (link.cut_to and gap <= link.grace.days):
            break
        start = link.end + timedelta(days=gap)
        kind = "renewal" if gap <= link.grace.days else "reactivation"
    return tuple(replace(link, followed=False) if link is made[-1] else link for link in made)


@st.composite
def cuts(draw: st.DrawFn, link: Link) -> Link:
    """The term itself, or cut on one of its days with part of its price credited."""
    how = draw(st.sampled_from(["served"] * 5 + ["changed", "cancelled"]))
    if how == "served":
        return link
    length = (link.full_end - link.start).days
    used = draw(st.integers(1 if how == "changed" else 0, length - 1))
    cut_to = link.start + timedelta(days=used)
    if cut_to <= link.activated and how == "changed":
        return link
    issued = max(link.activated, cut_to + timedelta(days=draw(st.sampled_from([0, 0, 3, -20]))))
    net = int(link.price.replace(".", ""))
    credit = (2 * net * (length - used) + length) // (2 * length)
    return replace(
        link,
        cut_to=cut_to,
        followed=how == "changed",
        credit=f"{credit / 100:.2f}",
        credited_on=issued if credit else None,
    )


def chains() -> st.SearchStrategy[list[Chain]]:
    """Some subscriptions of few customers; each customer has one currency and one country."""
    places = {1: ("USD", "US"), 2: ("USD", "CA"), 3: ("EUR", "DE")}
    chain = st.builds(
        lambda customer, links, left: Chain(
            links,
            customer,
            *places[customer],
            cancelled_on=links[-1].end if left or links[-1].status == "Cancelled" else None,
        ),
        st.integers(1, 3),
        links(),
        st.booleans(),
    )
    return st.lists(chain, min_size=1, max_size=5)


def month_of(day: date) -> date:
    return day.replace(day=1)


def known(given: Sequence[Chain], as_of: date) -> list[tuple[Chain, Link]]:
    """The terms that were activated by then."""
    return [(chain, link) for chain in given for link in chain.links if link.activated <= as_of]
