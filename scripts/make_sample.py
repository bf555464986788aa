"""Make the sample data in ``prepaid_pipeline/operations/sample``: the same files every time.

    python scripts/make_sample.py [DIRECTORY]

About 300 made-up customers over two years, as if today were 2026-11-01: terms that ended in the
last days are not renewed yet, new purchases and orders of returning customers wait. Standard
library only.
"""

import csv
import random
import sys
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

TODAY = date(2026, 11, 1)
# Terms that ended before were renewed or given up; weekly plans have a grace of half a week only.
OLDEST_DUE = date(2026, 10, 27)
OLDEST_DUE_WEEKLY = date(2026, 10, 30)
PRICE_RISE = date(2026, 1, 1)

# Name, term, prices in USD, EUR, JPY since PRICE_RISE and before, tax class.
PLANS = {
    "basic-monthly": ("Basic monthly", "P1M", (29, 27, 4200), (27, 25, 3900), "standard"),
    "pro-monthly": ("Pro monthly", "P1M", (79, 72, 11800), (74, 69, 11000), "standard"),
    "press-monthly": ("Press archive monthly", "P1M", (15, 14, 2200), (15, 14, 2200), "reduced"),
    "pro-quarterly": ("Pro quarterly", "P3M", (225, 205, 33600), (210, 196, 31500), "standard"),
    "basic-yearly": ("Basic yearly", "P1Y", (299, 279, 43200), (279, 259, 39900), "standard"),
    "pro-yearly": ("Pro yearly", "P1Y", (799, 729, 118000), (749, 699, 112000), "standard"),
    "flex-30": ("Flex 30 days", "P30D", (35, 32, 5000), (33, 30, 4700), "standard"),
    "week-pass": ("Week pass", "P7D", (12, 11, 1700), (12, 11, 1700), "standard"),
    # Each customer has a price of their own.
    "partner-monthly": ("Partner monthly", "P1M", None, None, "standard"),
}
# Japanese consumers read prices with the 10 % tax in them; what history cost is net.
WITH_TAX = {("flex-30", "JPY"): Decimal("1.10"), ("week-pass", "JPY"): Decimal("1.10")}
WEIGHTS = (70, 44, 16, 34, 40, 24, 28, 6, 8)
TERMS = {"P1M": (1, 0), "P3M": (3, 0), "P1Y": (12, 0), "P30D": (0, 30), "P7D": (0, 7)}

# Prices of a month in USD, EUR, JPY; a one-time add-on costs the same with every plan.
ADDONS = {
    "extra-storage": ("Extra storage", (Decimal("4.90"), Decimal("4.50"), 700), True),
    "priority-support": ("Priority support", (Decimal("12.00"), Decimal("11.00"), 1800), True),
    "second-user": ("Second user", (Decimal("9.50"), Decimal("8.90"), 1400), True),
    "set-up": ("Set-up", (Decimal("49.00"), Decimal("45.00"), 7000), False),
}
MONTHS = {"P1M": 1, "P3M": 3, "P1Y": 12, "P30D": 1, "P7D": Decimal("0.25")}
CURRENCIES = ("USD", "EUR", "JPY")

# Estonia raised its rate on 2025-07-01. A rate of 0 is a rate; Canada has none on purpose.
TAX_RATES = (
    ("US", "standard", "0.0725", "2020-01-01"),
    ("US", "reduced", "0", "2020-01-01"),
    ("DE", "standard", "0.19", "2021-01-01"),
    ("DE", "reduced", "0.07", "2021-01-01"),
    ("EE", "standard", "0.22", "2024-01-01"),
    ("EE", "standard", "0.24", "2025-07-01"),
    ("EE", "reduced", "0.09", "2025-01-01"),
    ("JP", "standard", "0.10", "2019-10-01"),
    ("JP", "reduced", "0.08", "2019-10-01"),
)
COUNTRIES = {"US": ("USD", 50), "DE": ("EUR", 22), "EE": ("EUR", 8), "JP": ("JPY", 20)}

FIRST_WORDS = (
    "Amber Birch Cedar Coral Delta Ember Fjord Harbor Indigo Juniper Lagoon Maple North Ocean "
    "Pebble Quartz River Saffron Tundra Willow"
)
TRADES = (
    "Bakery Books Cycles Dental Design Florist Garage Garden Hotel Kitchen Lab Logistics Media "
    "Music Optics Pharmacy Print Studio Tools Travel"
)


@dataclass
class Sample:
    """The rows of the files, and the source of chance."""

    chance: random.Random = field(default_factory=lambda: random.Random(20261101))
    customers: list[list[str]] = field(default_factory=list)
    subscriptions: list[list[str]] = field(default_factory=list)
    discounts: list[list[str]] = field(default_factory=list)
    service_plans: list[list[str]] = field(default_factory=list)

    def customer(
        self, country: str, *, email: bool = True, tax_exempt: bool = False, reason: str = ""
    ) -> int:
        """A new customer's number."""
        number = len(self.customers) + 1
        first, trade = self.chance.choice(FIRST_WORDS.split()), self.chance.choice(TRADES.split())
        domain = self.chance.choice(("example.com", "example.org"))
        address = f"{first}-{trade}-{number:03}@{domain}".lower() if email else ""
        currency = COUNTRIES.get(country, ("USD", 0))[0]
        self.customers.append(
            [
                f"C-{number:04}",
                f"{first} {trade} {number:03}",
                address,
                country,
                currency,
                str(tax_exempt).lower(),
                reason,
            ]
        )
        return number

    def subscription(
        self,
        customer: int,
        plan: str,
        started_on: date,
        *,
        price: str = "",
        addons: str = "",
        auto_renew: bool = True,
        cancelled_on: date | None = None,
        quantity: int = 1,
    ) -> str:
        """A new subscription's reference."""
        earlier = sum(row[1] == f"C-{customer:04}" for row in self.subscriptions)
        ref = f"S-{customer:04}" + (f"-{earlier + 1}" if earlier else "")
        self.subscriptions.append(
            [
                ref,
                f"C-{customer:04}",
                plan,
                started_on.isoformat(),
                str(auto_renew).lower(),
                price,
                addons,
                cancelled_on.isoformat() if cancelled_on else "",
                str(quantity),
            ]
        )
        return ref

    def terms(self, ref: str, start: date, until: date, *, status: str = "") -> date:
        """Terms from ``start``, end to end, until one ends on ``until`` or later; its end."""
        row = next(row for row in self.subscriptions if row[0] == ref)
        currency = next(c[4] for c in self.customers if c[0] == row[1])
        months, days = TERMS[PLANS[row[2]][1]]
        count, begin, end = 0, start, start
        while end < until:
            count += 1
            begin = end
            end = start + timedelta(days=days * count) if days else plus(start, months * count)
            price = row[5] or net_price(row[2], currency, begin, int(row[8])) or "120.00"
            state = status or ("Expired" if end <= TODAY else "Active")
            self.service_plans.append([ref, begin.isoformat(), end.isoformat(), price, state])
        return end

    def random_addons(self) -> str:
        """None for most, else one or two; a set-up fee for some."""
        codes = self.chance.sample(sorted(ADDONS)[:3], self.chance.choice((0, 0, 0, 1, 1, 2)))
        return ";".join(sorted(codes) + (["set-up"] if self.chance.random() < 0.15 else []))

    def random_country(self) -> str:
        """Half of the customers are in the United States."""
        weights = [weight for _, weight in COUNTRIES.values()]
        return self.chance.choices(list(COUNTRIES), weights)[0]

    def random_day(self, first: date, last: date) -> date:
        """A day of the two, both possible."""
        return first + timedelta(days=self.chance.randrange((last - first).days + 1))


def plus(anchor: date, months: int) -> date:
    """``anchor`` some months later; a day that the month does not have is its last day."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return date(year, month + 1, min(anchor.day, monthrange(year, month + 1)[1]))


def list_price(plan: str, currency: str, on: date) -> str:
    """The list price on a day, written with the currency's decimals; empty if there is none."""
    prices = PLANS[plan][2 if on >= PRICE_RISE else 3]
    return money(prices[CURRENCIES.index(currency)], currency) if prices else ""


def net_price(plan: str, currency: str, on: date, quantity: int) -> str:
    """What so many of a plan cost on a day, without tax; empty if there is no list price."""
    price = list_price(plan, currency, on)
    if not price:
        return ""
    net = quantity * Decimal(price) / WITH_TAX.get((plan, currency), 1)
    decimals = Decimal(1) if currency == "JPY" else Decimal("0.01")
    return money(net.quantize(decimals, ROUND_HALF_UP), currency)


def money(amount: Decimal | int, currency: str) -> str:
    """An amount with the currency's decimals."""
    return f"{amount:.0f}" if currency == "JPY" else f"{amount:.2f}"


def oldest_due(plan: str) -> date:
    """Until when the terms of a customer who stays were renewed."""
    return OLDEST_DUE_WEEKLY if plan == "week-pass" else OLDEST_DUE


def special_cases(s: Sample) -> None:
    """What the process must cope with: each of these has a renewal due in the first days."""
    no_email = s.subscription(s.customer("US", email=False), "basic-monthly", date(2026, 3, 3))
    s.terms(no_email, date(2026, 3, 3), OLDEST_DUE)
    no_price = s.subscription(s.customer("US"), "partner-monthly", date(2026, 2, 4))
    s.terms(no_price, date(2026, 2, 4), OLDEST_DUE)
    no_tax_rate = s.subscription(s.customer("CA"), "pro-monthly", date(2026, 5, 2))
    s.terms(no_tax_rate, date(2026, 5, 2), OLDEST_DUE)
    for country, plan, start, reason in (
        ("US", "pro-monthly", date(2025, 6, 5), "Exemption certificate on file"),
        ("DE", "basic-yearly", date(2024, 11, 6), ""),
    ):
        exempt = s.subscription(s.customer(country, tax_exempt=True, reason=reason), plan, start)
        s.terms(exempt, start, OLDEST_DUE)
    for day in (2, 3, 5, 7):
        start = date(2024 + day % 2, 11, day)
        plan = s.chance.choice(("basic-yearly", "pro-yearly"))
        yearly = s.subscription(s.customer(s.random_country()), plan, start)
        s.terms(yearly, start, OLDEST_DUE)
    # Bought on the 31st: 31 Jan, 28 Feb, 31 Mar.
    for start in (date(2024, 12, 31), date(2025, 1, 31), date(2025, 8, 31), date(2026, 1, 31)):
        plan = s.chance.choice(("basic-monthly", "pro-monthly"))
        month_end = s.subscription(s.customer(s.random_country()), plan, start)
        s.terms(month_end, start, OLDEST_DUE)


def regulars(s: Sample, count: int) -> None:
    """Customers who bought some day and renewed ever since; one in six gave up meanwhile."""
    for number in range(count):
        (plan,) = s.chance.choices(list(PLANS), WEIGHTS)
        start = s.random_day(date(2024, 11, 2), date(2026, 10, 25))
        customer = s.customer("US" if plan == "partner-monthly" else s.random_country())
        price = f"{s.chance.randrange(90, 180)}.00" if plan == "partner-monthly" else ""
        addons = s.random_addons()
        until, leaves = oldest_due(plan), number % 6 == 5 and start < date(2026, 7, 1)
        if leaves:
            until = s.random_day(start + timedelta(days=1), date(2026, 9, 30))
        quantity = 2 + number % 4 if number % 17 == 3 and not price else 1
        if quantity > 1:
            addons = addons.replace("second-user", f"second-user*{quantity}")
        ref = s.subscription(
            customer,
            plan,
            start,
            price=price,
            addons=addons,
            auto_renew=not leaves,
            quantity=quantity,
        )
        end = s.terms(ref, start, until)
        if leaves and number % 12 == 5 and end <= TODAY:
            # They cancelled in time instead of switching renewal off.
            s.subscriptions[-1][4], s.subscriptions[-1][7] = "true", str(end - timedelta(days=3))
        if number % 20 == 9 and not leaves:
            # From now on: what they paid before is history.
            s.discounts.append([ref, "loyal", "Loyal customer", "10", "", "", TODAY.isoformat()])
        if number in (52, 112):
            currency = s.customers[customer - 1][4]
            amount = money(500 if currency == "JPY" else 5, currency)
            s.discounts.append(
                [ref, "outage", "For the outage", "", amount, "1", TODAY.isoformat()]
            )
        if number == 11:
            s.terms(ref, end, end + timedelta(days=1), status="Cancelled")
        if number % 40 == 7 and not leaves:
            second = s.random_day(start, date(2026, 10, 20))
            extra = s.subscription(customer, "basic-monthly", second)
            s.terms(extra, second, OLDEST_DUE)


def returning(s: Sample, came_back: int, orders: int) -> None:
    """Customers who paused: most are back for months, some have ordered again right now."""
    for number in range(came_back + orders):
        plan = s.chance.choice(("basic-monthly", "pro-monthly", "pro-quarterly"))
        start = s.random_day(date(2024, 12, 1), date(2025, 4, 30))
        ref = s.subscription(s.customer(s.random_country()), plan, start)
        pause = s.terms(ref, start, s.random_day(date(2025, 7, 1), date(2025, 12, 31)))
        if number < came_back:
            s.terms(ref, pause + timedelta(days=s.chance.randrange(40, 120)), OLDEST_DUE)
        else:
            again = date(2026, 11, 2 + number - came_back)
            s.terms(ref, again, again + timedelta(days=1), status="Pending")


def purchases(s: Sample, count: int) -> None:
    """Bought in these days: subscriptions without terms. Two are second ones of customers."""
    plans = ("basic-monthly", "pro-monthly", "basic-yearly", "flex-30", "pro-quarterly")
    for number in range(count):
        customer = 40 + number if number < 2 else s.customer(s.random_country())
        ref = s.subscription(
            customer,
            plans[number % len(plans)],
            TODAY + timedelta(days=number % 4),
            addons="set-up" if number % 3 == 0 else s.random_addons(),
        )
        if number % 4 == 1:
            s.discounts.append([ref, "welcome", "Welcome", "20", "", "3", ""])


def price_lists() -> tuple[list[list[str]], list[list[str]]]:
    """The rows of plans.csv and addons.csv."""
    plans = [
        [
            code,
            name,
            term,
            currency,
            list_price(code, currency, on),
            tax_class,
            str((code, currency) in WITH_TAX).lower(),
            on.isoformat() if on == PRICE_RISE else "",
        ]
        for code, (name, term, prices, before, tax_class) in PLANS.items()
        for currency in (CURRENCIES if prices else ("USD",))
        for on in (PRICE_RISE - timedelta(days=1), *([PRICE_RISE] if prices != before else []))
    ]
    addons = [
        [
            code,
            name,
            term,
            currency,
            money(amount * (MONTHS[term] if recurring else 1), currency),
            str(recurring).lower(),
        ]
        for code, (name, amounts, recurring) in ADDONS.items()
        for term in TERMS
        for currency, amount in zip(CURRENCIES, amounts, strict=True)
    ]
    return plans, addons


def main(directory: Path) -> None:
    """Write the files."""
    s = Sample()
    special_cases(s)
    regulars(s, 265)
    returning(s, came_back=8, orders=4)
    purchases(s, 12)
    plans, addons = price_lists()
    files = {
        "customers": (
            "customer_ref,name,email,country,currency,tax_exempt,tax_exempt_reason",
            s.customers,
        ),
        "plans": (
            "plan_code,name,term,currency,price,tax_class,price_includes_tax,valid_from",
            plans,
        ),
        "addons": ("addon_code,name,term,currency,price,recurring", addons),
        "tax_rates": ("country,tax_class,rate,valid_from", TAX_RATES),
        "subscriptions": (
            "subscription_ref,customer_ref,plan_code,started_on,auto_renew,price,addons,"
            "cancelled_on,quantity",
            s.subscriptions,
        ),
        "discounts": (
            "subscription_ref,discount_code,name,percent,amount,terms,starts_on",
            s.discounts,
        ),
        "service_plans": ("subscription_ref,start_date,end_date,price,status", s.service_plans),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, (header, rows) in files.items():
        with (directory / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header.split(","))
            writer.writerows(rows)


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "prepaid_pipeline" / "operations" / "sample"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
