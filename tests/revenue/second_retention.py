"""Renewals, retention, cohorts and deferred revenue once more, in pandas and from CSV files.

By another way than the SQL: one row per customer and month, per term and slice. Shares no code with
the product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.revenue.second_calculation import _days, _terms

DECIMALS = {"JPY": 0, "KWD": 3}


@dataclass(frozen=True)
class Figures:
    """Each maps (month, currency, …) to its numbers, in the order of the tables' columns."""

    renewals: dict[tuple[str, str, str], tuple[int, ...]]
    retention: dict[tuple[str, str, int], tuple[Any, ...]]
    cohorts: dict[tuple[str, str, str], tuple[Any, ...]]
    deferred: dict[tuple[str, str], tuple[Fraction, ...]]


def calculate(folder: Path, as_of: date, grace_days: int) -> Figures:
    """All months from the first term to the month of ``as_of``, which is measured on that day."""
    import pandas as pd

    terms = _terms(folder, grace_days)
    subscriptions = pd.read_csv(folder / "subscriptions.csv", dtype=str, keep_default_na=False)
    if "cancelled_on" not in terms:
        terms["cancelled_on"] = ""
    assert set(subscriptions["subscription_ref"]) >= set(terms["subscription_ref"])
    terms = terms[terms["start"] <= as_of]
    first = min(terms["start"])
    months = [
        m.strftime("%Y-%m") for m in pd.period_range(f"{first:%Y-%m}", f"{as_of:%Y-%m}", freq="M")
    ]
    course = _course(terms, months, as_of)
    return Figures(
        _renewals(terms, as_of, grace_days),
        _retention(course, months),
        _cohorts(course, months),
        _deferred(terms, months, as_of),
    )


def _course(terms: Any, months: list[str], as_of: date) -> Any:
    """MRR at every month's end: a row per customer and currency, a column per month."""
    import pandas as pd

    columns = {}
    for month in months:
        day = min(pd.Period(month).end_time.date(), as_of)
        active = terms[(terms["start"] <= day) & (terms["end"] > day)]
        columns[month] = active.groupby(["customer_ref", "currency"])["monthly"].sum()
    return (
        pd.DataFrame(columns)
        .reindex(columns=months)
        .map(lambda amount: amount if isinstance(amount, Fraction) else Fraction(0))
    )


def _numbers(before: Any, now: Any) -> tuple[Any, ...]:
    """Of those who had something before: how many, how many still have, and the three amounts."""
    had = before > 0
    before, now = before[had], now[had]
    kept = sum((min(pair) for pair in zip(before, now, strict=True)), Fraction(0))
    return (
        len(before),
        int((now > 0).sum()),
        sum(before, Fraction(0)),
        kept,
        sum(now, Fraction(0)),
    )


def _retention(course: Any, months: list[str]) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    found = {}
    for currency, customers in course.groupby(level="currency"):
        for window in (1, 12):
            for place in range(window, len(months)):
                numbers = _numbers(customers[months[place - window]], customers[months[place]])
                if numbers[0]:
                    found[months[place], str(currency), window] = numbers
    return found


def _cohorts(course: Any, months: list[str]) -> dict[tuple[str, str, str], tuple[Any, ...]]:
    began = (course > 0).idxmax(axis="columns")
    found = {}
    for (currency, cohort), customers in course[(course > 0).any(axis="columns")].groupby(
        [course.index.get_level_values("currency"), began]
    ):
        for month in months[months.index(cohort) :]:
            found[month, str(currency), str(cohort)] = _numbers(customers[cohort], customers[month])
    return found


def _renewals(
    terms: Any, as_of: date, grace_days: int
) -> dict[tuple[str, str, str], tuple[int, ...]]:
    """(month, currency, plan) -> due and the six outcomes, in the order of the columns."""
    terms = terms.sort_values(["subscription_ref", "start"])
    terms = terms.assign(next=terms.groupby("subscription_ref")["start"].shift(-1))
    found: dict[tuple[str, str, str], list[int]] = {}
    for term in terms[terms["end"] <= as_of].to_dict("records"):
        end, follows = term["end"], term["next"]
        days = _days(term["term"])
        grace = timedelta(days=min(grace_days, days // 2) if days else grace_days)
        month_end = (end.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        if isinstance(follows, date) and follows > month_end + timedelta(days=grace_days):
            follows = None
        if isinstance(follows, date):
            place = 1 if follows <= end else 2 if follows <= end + grace else 3
        elif term["cancelled_on"] and date.fromisoformat(term["cancelled_on"]) <= end:
            place = 4
        else:
            place = 5 if as_of <= end + grace else 6
        entry = found.setdefault((f"{end:%Y-%m}", term["currency"], term["plan_code"]), [0] * 7)
        entry[0] += 1
        entry[place] += 1
    return {key: tuple(entry) for key, entry in found.items()}


def _slices(net: Fraction, start: date, end: date, until: date, decimals: int) -> Iterator[Any]:
    """(month, amount) of what is served of a term until a day."""
    unit, left, day = Decimal(1).scaleb(-decimals), net, start
    while day < end and day <= until:
        next_month = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        served = (min(next_month, end, until + timedelta(days=1)) - day).days
        exact = net * served / (end - start).days
        rounded = Fraction(
            (Decimal(exact.numerator) / exact.denominator).quantize(unit, ROUND_HALF_UP)
        )
        amount = left if day + timedelta(days=served) >= end else min(rounded, left)
        left -= amount
        yield f"{day:%Y-%m}", amount
        day += timedelta(days=served)


def _deferred(
    terms: Any, months: list[str], as_of: date
) -> dict[tuple[str, str], tuple[Fraction, ...]]:
    """(month, currency) -> opening, billed, recognised, closing; without months of nothing."""
    billed: dict[tuple[str, str], Fraction] = {}
    served: dict[tuple[str, str], Fraction] = {}
    for term in terms.to_dict("records"):
        currency, net = term["currency"], term["net"]
        key = (f"{term['start']:%Y-%m}", currency)
        billed[key] = billed.get(key, Fraction(0)) + net
        decimals = DECIMALS.get(currency, 2)
        for month, amount in _slices(net, term["start"], term["end"], as_of, decimals):
            served[month, currency] = served.get((month, currency), Fraction(0)) + amount
    found = {}
    for currency in sorted({currency for _, currency in billed}):
        owed = Fraction(0)
        for month in months:
            opening, nothing = owed, Fraction(0)
            came, gone = (side.get((month, currency), nothing) for side in (billed, served))
            owed = opening + came - gone
            if opening or came or gone or owed:
                found[month, currency] = (opening, came, gone, owed)
    return found
