"""The monthly figures once more, in pandas and from the CSV files of an import: by another way.

Every term is looked at on every month's last day, which the SQL never does; amounts are fractions.
Shares no code with the product.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

DAYS_A_MONTH = Fraction(36525, 1200)


@dataclass(frozen=True)
class Figures:
    """Each maps (month, currency, …) to a number and an amount."""

    mrr: dict[tuple[str, str, str], tuple[int, Fraction]]
    movements: dict[tuple[str, str, str], tuple[int, Fraction]]
    activations: dict[tuple[str, str, str, str], tuple[int, Fraction]]
    countries: dict[tuple[str, str, str], tuple[int, Fraction]]
    customers: dict[tuple[str, str, str], tuple[int, Fraction]]
    activations_by_country: dict[tuple[str, str, str, str], tuple[int, Fraction]]


def calculate(folder: Path, as_of: date, grace_days: int) -> Figures:
    """All months from the first term to the month of ``as_of``, which is measured on that day."""
    import pandas as pd

    terms = _terms(folder, grace_days)
    terms = terms[terms["start"] <= as_of]
    first = min(terms["start"])
    months = [
        m.strftime("%Y-%m") for m in pd.period_range(f"{first:%Y-%m}", f"{as_of:%Y-%m}", freq="M")
    ]
    on_days = []
    for month in months:
        day = min(pd.Period(month).end_time.date(), as_of)
        active = terms[(terms["start"] <= day) & (terms["end"] > day)]
        on_days.append(active.assign(month=month))
    seen = pd.concat(on_days)
    return Figures(
        _by(seen, ["month", "currency", "plan_code"], "monthly"),
        _movements(seen, months),
        _by(terms, ["month_of_start", "currency", "plan_code", "kind"], "net"),
        _by(seen, ["month", "currency", "country"], "monthly"),
        _customers(seen, ["month", "currency", "country"]),
        _by(terms, ["month_of_start", "currency", "country", "kind"], "net"),
    )


def _terms(folder: Path, grace_days: int) -> Any:
    """One row per term that was activated, with its monthly and its whole net amount."""
    import pandas as pd

    def file(name: str) -> Any:
        return pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)

    plans = file("plans")[["plan_code", "term"]].drop_duplicates()
    terms = (
        file("service_plans")
        .query("status in ('Active', 'Expired')")
        .merge(file("subscriptions").drop(columns="price"), on="subscription_ref", validate="m:1")
        .merge(
            file("customers")[["customer_ref", "currency", "country"]],
            on="customer_ref",
            validate="m:1",
        )
        .merge(plans, on="plan_code", validate="m:1")
        .sort_values(["subscription_ref", "start_date"])
    )
    terms["start"] = terms["start_date"].map(date.fromisoformat)
    terms["end"] = terms["end_date"].map(date.fromisoformat)
    terms["month_of_start"] = terms["start_date"].str[:7]
    terms["days"] = terms["term"].map(_days)
    previous_end = terms.groupby("subscription_ref")["end"].shift()
    terms["first"] = previous_end.isna()
    grace = terms["days"].map(lambda days: min(grace_days, days // 2) if days else grace_days)
    terms["kind"] = [
        "new" if first else "renewal" if start <= before + timedelta(days=late) else "reactivation"
        for first, start, before, late in zip(
            terms["first"], terms["start"], previous_end, grace, strict=True
        )
    ]
    addons = file("addons").set_index(["addon_code", "term", "currency"])
    sold = [_addons(addons, row) for row in terms.to_dict("records")]
    price = terms["price"].map(Fraction)
    terms["net"] = price + [every for every, _ in sold]
    terms["monthly"] = [
        (base + recurring) / _months(term)
        for base, (_, recurring), term in zip(price, sold, terms["term"], strict=True)
    ]
    return terms


def _addons(addons: Any, row: dict[str, Any]) -> tuple[Fraction, Fraction]:
    """What a term's add-ons cost, and what of it recurs. The first term alone has one-time ones."""
    every = recurring = Fraction(0)
    for sold in filter(None, row["addons"].split(";")):
        code, _, quantity = sold.partition("*")
        addon = addons.loc[(code, row["term"], row["currency"])]
        amount = Fraction(addon["price"]) * int(quantity or 1)
        if addon["recurring"] == "true":
            recurring += amount
        if addon["recurring"] == "true" or row["first"]:
            every += amount
    return every, recurring


def _days(term: str) -> int:
    return {"P7D": 7, "P30D": 30}.get(term, 0)


def _months(term: str) -> Fraction:
    return Fraction(_days(term)) / DAYS_A_MONTH or Fraction({"P1M": 1, "P3M": 3, "P1Y": 12}[term])


def _by(rows: Any, keys: list[str], amount: str) -> dict[Any, tuple[int, Fraction]]:
    return {key: (len(of), sum(of[amount], Fraction(0))) for key, of in rows.groupby(keys)}


def _customers(rows: Any, keys: list[str]) -> dict[Any, tuple[int, Fraction]]:
    """How many different customers have revenue there, and how much."""
    paying = rows[[amount > 0 for amount in rows["monthly"]]]
    return {
        key: (of["customer_ref"].nunique(), sum(of["monthly"], Fraction(0)))
        for key, of in paying.groupby(keys)
    }


def convert(
    figures: Figures, rates: dict[tuple[str, str], Fraction], month: str, before: str
) -> dict[str, Fraction]:
    """A month in one currency, from scratch: each customer's plans at the rates of two month ends.
    ``rates`` has (month, currency), the reporting currency's own is 1.
    """

    def total(of: str, at: str) -> Fraction:
        return sum(
            (amount * rates[at, c] for (m, c, _), (_, amount) in figures.mrr.items() if m == of),
            Fraction(0),
        )

    found = {"opening_mrr": total(before, before), "mrr": total(month, month)}
    found["exchange_rates"] = total(before, month) - found["opening_mrr"]
    for (m, currency, movement), (_, amount) in figures.movements.items():
        if m == month:
            found[movement] = found.get(movement, Fraction(0)) + amount * rates[month, currency]
    for (m, currency, _, kind), (_, amount) in figures.activations.items():
        if m == month:
            key = f"{kind}_net"
            found[key] = found.get(key, Fraction(0)) + amount * rates[month, currency]
    return found


def _movements(seen: Any, months: list[str]) -> dict[tuple[str, str, str], tuple[int, Fraction]]:
    """Each customer's course over all months, one beside the other."""
    keys = ["customer_ref", "currency"]
    course = (
        seen.groupby([*keys, "month"])["monthly"]
        .sum()
        .unstack(fill_value=Fraction(0))
        .reindex(columns=months, fill_value=Fraction(0))
    )
    moved: dict[tuple[str, str, str], tuple[int, Fraction]] = {}
    for (_, currency), amounts in course.iterrows():
        had, before = False, Fraction(0)
        for month, now in amounts.items():
            if now != before:
                if before == 0:
                    movement = "reactivation" if had else "new"
                elif now == 0:
                    movement = "churn"
                else:
                    movement = "expansion" if now > before else "contraction"
                customers, amount = moved.get((month, currency, movement), (0, Fraction(0)))
                moved[month, currency, movement] = customers + 1, amount + now - before
            had, before = had or now != 0, now
    return moved
