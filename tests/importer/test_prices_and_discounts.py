"""Price lists with dates and with tax in them, quantities, exemption reasons and discounts."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.context import Context
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.importer.folders import AS_OF, BASE, dump, rows, take

PLANS = "plan_code,name,term,currency,price,price_includes_tax,valid_from\n"
ADDONS = "addon_code,name,term,currency,price,recurring,price_includes_tax,valid_from\n"
SUBSCRIPTIONS = (
    "subscription_ref,customer_ref,plan_code,started_on,auto_renew,price,addons,quantity\n"
)
DISCOUNTS = "subscription_ref,discount_code,name,percent,amount,terms,starts_on\n"
CUSTOMERS = "customer_ref,name,email,country,currency,tax_exempt,tax_exempt_reason\n"

PRICES = """SELECT price::text, includes_tax, valid_from::text
            FROM prepaid.plan_prices JOIN prepaid.plans USING (plan_id)
            WHERE plan_code = :code AND currency = 'USD' ORDER BY valid_from"""
LOG = "SELECT event, detail FROM prepaid.audit_log ORDER BY audit_id"


@pytest.fixture
def filled(engine: Engine, folder: Path) -> Engine:
    assert {r.status for r in take(engine, folder, dict(BASE)).values()} == {"imported"}
    return engine


def test_a_later_price_stands_beside_the_first_one(filled: Engine, folder: Path) -> None:
    dated = PLANS + "basic,Basic,P1M,USD,11.00,,2027-01-01\nbasic,Basic,P1M,USD,10.00,,\n"
    report = take(filled, folder, {"plans": dated})["plans"]
    assert (report.added, report.changed) == (1, 0)
    both = [("10.00", False, "1900-01-01"), ("11.00", False, "2027-01-01")]
    assert rows(filled, PRICES, code="basic") == both
    assert rows(filled, LOG)[-1] == (
        "plan_price_added",
        "currency: USD, includes_tax: false, price: 11.00, valid_from: 2027-01-01",
    )
    # The file without the column speaks of the first price only.
    assert take(filled, folder, {"plans": BASE["plans"]})["plans"].status == "unchanged"
    assert rows(filled, PRICES, code="basic") == both


def test_a_file_without_the_column_keeps_that_prices_include_tax(
    filled: Engine, folder: Path
) -> None:
    gross = PLANS + "basic,Basic,P1M,USD,10.00,true,\n"
    assert take(filled, folder, {"plans": gross})["plans"].changed == 1
    assert rows(filled, LOG)[-1] == (
        "plan_price_changed",
        "currency USD, valid_from 1900-01-01; includes_tax: false -> true",
    )
    later = "plan_code,name,term,currency,price,valid_from\nbasic,Basic,P1M,USD,12.00,2027-01-01\n"
    assert take(filled, folder, {"plans": later})["plans"].added == 1
    assert take(filled, folder, {"plans": BASE["plans"]})["plans"].status == "unchanged"
    assert rows(filled, PRICES, code="basic") == [
        ("10.00", True, "1900-01-01"),
        ("12.00", True, "2027-01-01"),
    ]
    # An empty field is an answer: false.
    assert take(filled, folder, {"plans": gross.replace("true", "")})["plans"].changed == 1
    assert rows(filled, PRICES, code="basic")[0] == ("10.00", False, "1900-01-01")


def test_addon_prices_have_dates_and_tax_too(filled: Engine, folder: Path) -> None:
    text = ADDONS + (
        "storage,Storage,P1M,USD,2.00,true,true,\nstorage,Storage,P1M,USD,3.00,true,,2026-10-01\n"
    )
    report = take(filled, folder, {"addons": text})["addons"]
    assert (report.added, report.changed) == (1, 1)
    assert take(filled, folder, {"addons": text})["addons"].status == "unchanged"
    query = """SELECT price, includes_tax, valid_from::text, valid_until::text
               FROM prepaid.addon_price_periods JOIN prepaid.addons USING (addon_id)
               WHERE addon_code = 'storage' AND currency = 'USD' ORDER BY valid_from"""
    assert rows(filled, query) == [
        (2, True, "1900-01-01", "2026-10-01"),
        (3, False, "2026-10-01", "infinity"),
    ]
    assert [row[0] for row in rows(filled, LOG)] == ["addon_price_added", "addon_price_changed"]


def test_history_takes_the_addon_price_of_its_day_without_tax(engine: Engine, folder: Path) -> None:
    """Two units of 2.00 with 7.25 % in them are 3.73 net; from 15 September on 2.50 net each."""
    files = dict(BASE) | {
        "addons": ADDONS
        + "storage,Storage,P1M,USD,2.00,true,true,\nstorage,Storage,P1M,USD,2.50,true,,2026-09-15\n"
        + "set-up,Set-up,P1M,USD,5.00,false,,\n",
        "subscriptions": BASE["subscriptions"].replace("storage;", "storage*2;"),
    }
    assert {r.status for r in take(engine, folder, files).values()} == {"imported"}
    query = """SELECT start_date::text, net_amount::text, recurring_amount::text, addons -> -1
               FROM prepaid.service_plans JOIN prepaid.subscriptions USING (subscription_id)
               WHERE subscription_ref = 'S-1' ORDER BY 1"""
    storage = {
        "addon_code": "storage",
        "name": "Storage",
        "recurring": True,
        "quantity": 2,
        "tax_class": "standard",
    }
    before = storage | {"price": 2, "includes_tax": True}
    after = storage | {"price": 2.5, "includes_tax": False}
    assert rows(engine, query) == [
        ("2026-08-15", "18.73", "13.73", before),
        ("2026-09-15", "15.00", "15.00", after),
        ("2026-10-15", "15.00", "15.00", after),
    ]


def test_tax_in_a_price_needs_its_rate(engine: Engine, folder: Path) -> None:
    files = dict(BASE) | {
        "addons": ADDONS
        + "storage,Storage,P1M,USD,2.00,true,true,\nset-up,S,P1M,USD,5.00,false,,\n",
        "tax_rates": "country,tax_class,rate,valid_from\nUS,standard,0.07,2026-09-01\n",
    }
    report = take(engine, folder, files)["service_plans"]
    assert report.errors == [
        "service_plans.csv:2:subscription_ref: found 'S-1', expected a subscription whose add-ons' "
        "tax is known on 2026-08-15, because their prices contain it; no rate is for: storage"
    ]


def test_quantities_of_plans_and_addons(filled: Engine, folder: Path) -> None:
    text = SUBSCRIPTIONS + (
        "S-1,C-1,basic,2026-08-15,true,,set-up; storage * 3,5\n"
        "S-2,C-2,basic,2026-09-20,true,8.50,,\n"
    )
    assert take(filled, folder, {"subscriptions": text})["subscriptions"].changed == 1
    query = """SELECT s.quantity, addon_code, a.quantity FROM prepaid.subscriptions s
               JOIN prepaid.subscription_addons a USING (subscription_id)
               JOIN prepaid.addons USING (addon_id) ORDER BY addon_code"""
    assert rows(filled, query) == [(5, "set-up", 1), (5, "storage", 3)]
    assert [row for row in rows(filled, LOG) if row[0] == "subscription_changed"] == [
        ("subscription_changed", "addons: set-up;storage -> set-up;storage*3"),
        ("subscription_changed", "quantity: 1 -> 5"),
    ]
    assert take(filled, folder, {"subscriptions": text})["subscriptions"].status == "unchanged"
    # Without the column the five stay; the add-ons are written anew.
    again = take(filled, folder, {"subscriptions": BASE["subscriptions"]})["subscriptions"]
    assert again.changed == 1
    assert rows(filled, query) == [(5, "set-up", 1), (5, "storage", 1)]


def test_the_reason_of_an_exemption(filled: Engine, folder: Path) -> None:
    text = CUSTOMERS + "C-2,Birch Books,,DE,EUR,true,Reverse charge\n"
    query = "SELECT tax_exempt_reason FROM prepaid.customers WHERE customer_ref = 'C-2'"
    assert take(filled, folder, {"customers": text})["customers"].changed == 1
    assert rows(filled, LOG)[-1] == ("customer_changed", "tax_exempt_reason")
    assert take(filled, folder, {"customers": BASE["customers"]})["customers"].changed == 0
    assert rows(filled, query) == [("Reverse charge",)]
    # Who is exempt no more has no reason.
    taxed = BASE["customers"].replace("EUR,true", "EUR,false")
    assert take(filled, folder, {"customers": taxed})["customers"].changed == 1
    assert rows(filled, query) == [(None,)]


def test_discounts_are_added_changed_and_audited(filled: Engine, folder: Path) -> None:
    text = DISCOUNTS + "S-1,welcome,Welcome,20,,3,\nS-3,loyal,Loyal,,100,,2026-12-01\n"
    report = take(filled, folder, {"discounts": text})["discounts"]
    assert (report.status, report.added, report.changed) == ("imported", 2, 0)
    assert take(filled, folder, {"discounts": text})["discounts"].status == "unchanged"
    ended = text.replace("20,,3,", "20,,0,")
    assert take(filled, folder, {"discounts": ended})["discounts"].changed == 1
    query = """SELECT subscription_ref, discount_code, percent, amount::text, terms, starts_on::text
               FROM prepaid.discounts JOIN prepaid.subscriptions USING (subscription_id)
               ORDER BY 1"""
    assert rows(filled, query) == [
        ("S-1", "welcome", 20, None, 0, None),
        ("S-3", "loyal", None, "100", None, "2026-12-01"),
    ]
    added, changed = rows(filled, LOG)[-2:]
    assert added[0] == "discount_added"
    assert added[1].endswith(
        "amount: 100, discount_code: loyal, name: Loyal, starts_on: 2026-12-01, subscription_id: 3"
    )
    assert changed == ("discount_changed", "discount_code welcome; terms: 3 -> 0")


def test_no_subscription_is_a_purchase_while_its_discount_is_refused(
    engine: Engine, folder: Path
) -> None:
    """It would be invoiced in full."""
    files = {name: text for name, text in BASE.items() if name != "service_plans"}
    bad = take(engine, folder, files | {"discounts": DISCOUNTS + "S-5,welcome,Welcome,,,1,\n"})
    assert bad["discounts"].status == "refused"
    at = Context(AS_OF, 7, 7)
    assert steps.open_service_plans(engine, at) == 0
    found = {result.name: result.findings for result in invariants.run(engine, at)}
    assert len(found["14_history_has_arrived"]) == 5

    good = files | {"discounts": DISCOUNTS + "S-5,welcome,Welcome,50,,1,\n"}
    assert take(engine, folder, good)["discounts"].status == "imported"
    assert rows(engine, "SELECT count(*) FROM prepaid.subscriptions_awaiting_history") == [(0,)]


def test_history_waits_for_refused_discounts(engine: Engine, folder: Path) -> None:
    reports = take(engine, folder, dict(BASE) | {"discounts": DISCOUNTS + "S-5,w,W,,,1,\n"})
    assert reports["service_plans"].errors == [
        "service_plans.csv: skipped, because it needs discounts.csv"
    ]
    reports = take(engine, folder, dict(BASE) | {"discounts": DISCOUNTS + "S-5,w,W,5,,1,\n"})
    assert (reports["discounts"].status, reports["service_plans"].status) == ("imported",) * 2
    assert rows(engine, "SELECT count(*) FROM prepaid.subscriptions_awaiting_history") == [(0,)]


# file, its header, what is below it, the message.
BAD: dict[str, tuple[str, str, str, str]] = {
    "no percentage": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,0,,,\n",
        "2:percent: found '0', expected a percentage above 0 and up to 100 (15 is 15 %)",
    ),
    "more than everything": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,100.5,,,\n",
        "2:percent: found '100.5', expected a percentage above 0 and up to 100 (15 is 15 %)",
    ),
    "negative amount": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,,-5,,\n",
        "2:amount: found '-5', expected an amount above 0 with a decimal point such as 12.50",
    ),
    "neither": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,,,,\n",
        "2:amount: found nothing, expected percent or amount: one of them says how much it is",
    ),
    "both": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,10,5,,\n",
        "2:amount: found '5', expected nothing: percent says 10 already",
    ),
    "discount twice": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,10,,,\nS-1,a,A,20,,,\n",
        "3:discount_code: found 'a', expected each discount_code of a subscription once; line 2 "
        "has it already",
    ),
    "discount of nobody": (
        "discounts",
        DISCOUNTS,
        "S-99,a,A,10,,,\n",
        "2:subscription_ref: found 'S-99', expected a known subscription",
    ),
    "decimals of a discount": (
        "discounts",
        DISCOUNTS,
        "S-3,a,A,,10.5,,\n",
        "2:amount: found '10.5', expected at most 0 decimals in JPY",
    ),
    "half a term": (
        "discounts",
        DISCOUNTS,
        "S-1,a,A,10,,1.5,\n",
        "2:terms: found '1.5', expected a whole number from 0 to 999999",
    ),
    "quantity of none": (
        "subscriptions",
        SUBSCRIPTIONS,
        "S-1,C-1,basic,2026-08-15,true,,,0\n",
        "2:quantity: found '0', expected a whole number from 1 to 999999",
    ),
    "no add-on": (
        "subscriptions",
        SUBSCRIPTIONS,
        "S-1,C-1,basic,2026-08-15,true,,storage*0,1\n",
        "2:addons: found 'storage*0', expected add-ons such as storage or storage*3, separated "
        "by ;",
    ),
    "how many add-ons": (
        "subscriptions",
        SUBSCRIPTIONS,
        "S-1,C-1,basic,2026-08-15,true,,storage*,1\n",
        "2:addons: found 'storage*', expected add-ons such as storage or storage*3, separated by ;",
    ),
    "add-on twice with numbers": (
        "subscriptions",
        SUBSCRIPTIONS,
        "S-1,C-1,basic,2026-08-15,true,,storage*2;storage,1\n",
        "2:addons: found 'storage*2;storage', expected each add-on once, separated by ;",
    ),
    "unknown add-on with a number": (
        "subscriptions",
        SUBSCRIPTIONS,
        "S-1,C-1,basic,2026-08-15,true,,gold*2,1\n",
        "2:addons: found 'gold', expected known add-ons",
    ),
    "code that cannot be named": (
        "addons",
        ADDONS,
        "a*2,A,P1M,USD,1.00,true,,\n",
        "2:addon_code: found 'a*2', expected an addon_code without ; and *",
    ),
    "price from no day": (
        "plans",
        PLANS,
        "basic,Basic,P1M,USD,10.00,,1899-12-31\n",
        "2:valid_from: found '1899-12-31', expected a date such as 2026-01-31",
    ),
    "first price twice": (
        "plans",
        PLANS,
        "p,P,P1M,USD,1.00,,\np,P,P1M,USD,2.00,true,1900-01-01\n",
        "3:currency: found 'USD', expected each currency and valid_from of a plan_code once; "
        "line 2 has it already",
    ),
    "tax in it, or not": (
        "plans",
        PLANS,
        "basic,Basic,P1M,USD,10.00,yes,\n",
        "2:price_includes_tax: found 'yes', expected true or false",
    ),
    "reason without exemption": (
        "customers",
        CUSTOMERS,
        "C-9,Amber,,US,USD,false,Reverse charge\n",
        "2:tax_exempt_reason: found 'Reverse charge', expected nothing: the customer is not "
        "tax-exempt",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_message_per_fault_and_nothing_imported(
    base_engine: Engine, folder: Path, case: str
) -> None:
    name, header, lines, message = BAD[case]
    before = dump(base_engine)
    report = take(base_engine, folder, {name: header + lines})[name]
    assert report.errors == [f"{name}.csv:{message}"]
    assert report.status == "refused"
    assert dump(base_engine) == before


def test_an_amount_keeps_its_customers_currency(filled: Engine, folder: Path) -> None:
    take(filled, folder, {"discounts": DISCOUNTS + "S-3,loyal,Loyal,,100,,\n"})
    moved = BASE["customers"].replace("JP,JPY", "JP,USD")
    (error,) = take(filled, folder, {"customers": moved})["customers"].errors
    assert error.startswith("customers.csv:4:currency: found 'USD', expected JPY:")
    elsewhere = BASE["subscriptions"].replace("S-3,C-3", "S-3,C-1")
    (error,) = take(filled, folder, {"subscriptions": elsewhere})["subscriptions"].errors
    assert error.startswith("subscriptions.csv:4:customer_ref: found 'C-1', expected 'C-3':")
