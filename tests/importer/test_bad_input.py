"""Every kind of bad input: one clear line with file, line and column, and nothing is imported."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.errors import ImportRefused
from prepaid_pipeline.importer.loading import import_directory
from tests.importer.folders import AS_OF, BASE, dump, take, write

HEADERS = {name: content.partition("\n")[0] for name, content in BASE.items()}
HEADERS["transactions"] = (
    "provider,provider_ref,invoice_number,amount,currency,status,occurred_at,customer_ref"
)
C = f"the header {HEADERS['customers']}[,tax_exempt_reason]"

# file, content below its header (or whole, when it has bytes or its own header), message.
CASES: dict[str, tuple[str, str | bytes, str]] = {
    "unknown column": (
        "customers",
        b"customer_ref,name,mail,country,currency,tax_exempt\n",
        f"1:mail: found an unknown column 'mail' and no column email, expected {C}",
    ),
    "missing column": (
        "customers",
        b"customer_ref,name,country,currency,tax_exempt\n",
        f"1:email: found no such column, expected {C}",
    ),
    "column twice": (
        "customers",
        b"customer_ref,name,email,email,country,currency,tax_exempt\n",
        f"1:email: found this column twice, expected {C}",
    ),
    "semicolons": (
        "customers",
        b"customer_ref;name;email;country;currency;tax_exempt\n",
        "1:-: found an unknown column 'customer_ref;name;email;country;currency'… and no column "
        f"customer_ref, name, email, country, currency, tax_exempt, expected {C}",
    ),
    "empty file": ("customers", b"", f"1:-: found an empty file, expected {C}"),
    "UTF-16": (
        "customers",
        "customer_ref".encode("utf-16"),
        "1:-: found a NUL byte (byte 3 of the file), expected UTF-8 text",
    ),
    "Latin-1": (
        "customers",
        HEADERS["customers"].encode() + b"\nC-9,Caf\xe9,,DE,EUR,false\n",
        "2:name: found the byte 0xE9 (byte 59 of the file), expected UTF-8 text",
    ),
    "NUL byte": (
        "customers",
        "C-9,Caf\0e,,DE,EUR,false\n",
        "2:name: found a NUL byte (byte 59 of the file), expected UTF-8 text",
    ),
    "too few fields": (
        "customers",
        "C-9,Amber,a@example.com,US\n",
        "2:currency: found 4 fields, expected 6, one for each column",
    ),
    "too many fields": (
        "customers",
        "C-9,Amber, Inc.,a@example.com,US,USD,false\n",
        "2:tax_exempt: found 7 fields, expected 6, one for each column",
    ),
    "quote inside a field": (
        "customers",
        'C-9,"Amber "quoted" Inc.",a@example.com,US,USD,false\n',
        "2:-: found broken CSV (',' expected after '\"'), expected a comma after the closing "
        "quote; a quote inside a field is written twice",
    ),
    "quote never closed": (
        "customers",
        'C-9,"Amber,a@example.com,US,USD,false\nC-8,B,,US,USD,false\n',
        "2:-: found broken CSV (unexpected end of data), expected a closing quote",
    ),
    "field as large as a book": (
        "customers",
        f"C-9,{'A' * 200_000},,US,USD,false\n",
        "2:-: found broken CSV (field larger than field limit (131072)), expected a field of at "
        "most 131,072 characters: is a closing quote missing?",
    ),
    "endless line": (
        "customers",
        f"C-9,{'A' * 3_000_000}",
        "2:-: found a line longer than 1,048,576 bytes, expected a CSV file with one record per "
        "line",
    ),
    "long name": (
        "customers",
        f"C-9,{'A' * 201},,US,USD,false\n",
        "2:name: found 201 characters, expected at most 200",
    ),
    "no reference": (
        "customers",
        " ,Amber,,US,USD,false\n",
        "2:customer_ref: found nothing, expected a value",
    ),
    "unknown country": (
        "customers",
        "C-9,Amber,,XX,USD,false\n",
        "2:country: found 'XX', expected an ISO 3166 country code such as US",
    ),
    "unknown currency": (
        "customers",
        "C-9,Amber,,US,USX,false\n",
        "2:currency: found 'USX', expected an ISO 4217 currency code such as EUR",
    ),
    "no truth": (
        "customers",
        "C-9,Amber,,US,USD,yes\n",
        "2:tax_exempt: found 'yes', expected true or false",
    ),
    "bad e-mail": (
        "customers",
        "C-9,Amber,amber at example.com,US,USD,false\n",
        "2:email: found 'amber at example.com', expected an email address such as "
        "billing@example.com, or nothing",
    ),
    "header injection": (
        "customers",
        'C-9,Amber,"a@example.com\nBcc: b@example.com",US,USD,false\n',
        "2:email: found 'a@example.com\\nBcc: b@example.com', expected an email address such as "
        "billing@example.com, or nothing",
    ),
    "customer twice": (
        "customers",
        "C-9,Amber,,US,USD,false\nC-8,B,,US,USD,false\nC-9,Amber,,US,USD,false\n",
        "4:customer_ref: found 'C-9', expected each customer_ref once; line 2 has it already",
    ),
    "currency of a customer in use": (
        "customers",
        "C-1,Amber Bakery,amber@example.com,US,EUR,false\n",
        "2:currency: found 'EUR', expected USD: the currency of a customer with service plans, "
        "own prices or discounts stays; make a new customer",
    ),
    "bad term": (
        "plans",
        "p,P,monthly,USD,1.00,\n",
        "2:term: found 'monthly', expected an ISO 8601 duration such as P1M, P1Y or P30D",
    ),
    "months and days": (
        "plans",
        "p,P,P1M3D,USD,1.00,\n",
        "2:term: found 'P1M3D', expected an ISO 8601 duration such as P1M, P1Y or P30D",
    ),
    "negative price": (
        "plans",
        "p,P,P1M,USD,-1.00,\n",
        "2:price: found '-1.00', expected a price of 0 or more",
    ),
    "decimal comma": (
        "plans",
        'p,P,P1M,EUR,"1,00",\n',
        "2:price: found '1,00', expected a price with a decimal point such as 1234.50",
    ),
    "exponent": (
        "plans",
        "p,P,P1M,EUR,1e3,\n",
        "2:price: found '1e3', expected a price with a decimal point such as 1234.50",
    ),
    "decimals of a plan": (
        "plans",
        "p,P,P1M,JPY,100.5,\n",
        "2:price: found '100.5', expected at most 0 decimals in JPY",
    ),
    "plan and currency twice": (
        "plans",
        "p,P,P1M,USD,1.00,\np,P,P1M,USD,1.00,\n",
        "3:currency: found 'USD', expected each currency and valid_from of a plan_code "
        "once; line 2 has it already",
    ),
    "two names of a plan": (
        "plans",
        "p,P,P1M,USD,1.00,\np,Q,P1M,EUR,1.00,\n",
        "3:name: found 'Q', expected 'P' as on line 2: all rows of a plan_code agree",
    ),
    "two terms of a plan": (
        "plans",
        "p,P,P1M,USD,1.00,\np,P,P30D,EUR,1.00,\n",
        "3:term: found 'P30D', expected 'P1M' as on line 2: all rows of a plan_code agree",
    ),
    "term of a plan in use": (
        "plans",
        "basic,Basic,P1Y,USD,10.00,\n",
        "2:term: found 'P1Y', expected P1M: the term of a plan that has subscriptions stays; use a "
        "new plan_code",
    ),
    "plan in no currency": (
        "plans",
        "p,P,P1M,usd,1.00,\n",
        "2:currency: found 'usd', expected an ISO 4217 currency code such as EUR",
    ),
    "add-on for nothing": (
        "addons",
        "a,A,P1M,USD,,true\n",
        "2:price: found nothing, expected a value",
    ),
    "add-on twice": (
        "addons",
        "a,A,P1Y,USD,1.00,true\na,A,P12M,USD,1.00,true\n",
        "3:currency: found 'USD', expected each currency and valid_from of an addon_code "
        "and term once; line 2 has it already",
    ),
    "add-on recurring or not": (
        "addons",
        "a,A,P1Y,USD,1.00,true\na,A,P1M,USD,1.00,false\n",
        "3:recurring: found 'false', expected 'true' as on line 2: all rows of an addon_code agree",
    ),
    "decimals of an add-on": (
        "addons",
        "a,A,P1Y,USD,1.005,true\n",
        "2:price: found '1.005', expected at most 2 decimals in USD",
    ),
    "add-on in no currency": (
        "addons",
        "a,A,P1M,XXX,1.00,true\n",
        "2:currency: found 'XXX', expected an ISO 4217 currency code such as EUR",
    ),
    "per cent": (
        "tax_rates",
        "US,standard,7.25,2026-01-01\n",
        "2:rate: found '7.25', expected a fraction from 0 to 1 (0.19 is 19 %)",
    ),
    "bad date": (
        "tax_rates",
        "US,standard,0.07,2026-02-30\n",
        "2:valid_from: found '2026-02-30', expected a date such as 2026-01-31",
    ),
    "date of another country": (
        "tax_rates",
        "US,standard,0.07,31.01.2026\n",
        "2:valid_from: found '31.01.2026', expected a date such as 2026-01-31",
    ),
    "year 206": (
        "tax_rates",
        "US,standard,0.07,0206-01-31\n",
        "2:valid_from: found '0206-01-31', expected a date such as 2026-01-31",
    ),
    "rate twice": (
        "tax_rates",
        "US,standard,0.07,2026-01-31\nUS,standard,0.08,2026-01-31\n",
        "3:valid_from: found '2026-01-31', expected each valid_from of a country and tax_class "
        "once; line 2 has it already",
    ),
    "unknown customer": (
        "subscriptions",
        "S-9,C-99,basic,2026-11-01,true,,\n",
        "2:customer_ref: found 'C-99', expected a known customer",
    ),
    "unknown plan": (
        "subscriptions",
        "S-9,C-1,gold,2026-11-01,true,,\n",
        "2:plan_code: found 'gold', expected a known plan",
    ),
    "unknown add-on": (
        "subscriptions",
        "S-9,C-1,basic,2026-11-01,true,,storage;gold\n",
        "2:addons: found 'gold', expected known add-ons",
    ),
    "add-on twice in a list": (
        "subscriptions",
        "S-9,C-1,basic,2026-11-01,true,,storage;storage\n",
        "2:addons: found 'storage;storage', expected each add-on once, separated by ;",
    ),
    "decimals of a subscription": (
        "subscriptions",
        "S-9,C-3,basic,2026-11-01,true,10.50,\n",
        "2:price: found '10.50', expected at most 0 decimals in JPY",
    ),
    "subscription twice": (
        "subscriptions",
        "S-9,C-1,basic,2026-11-01,true,,\nS-9,C-1,basic,2026-11-01,true,,\n",
        "3:subscription_ref: found 'S-9', expected each subscription_ref once; line 2 has it "
        "already",
    ),
    "subscription of another customer": (
        "subscriptions",
        "S-1,C-3,basic,2026-08-15,true,,\n",
        "2:customer_ref: found 'C-3', expected 'C-1': a subscription with service plans or "
        "discounted amounts stays with its customer",
    ),
    "cancelled before it began": (
        "subscriptions",
        HEADERS["subscriptions"].encode()
        + b",cancelled_on\nS-9,C-1,basic,2026-11-01,true,,,2026-10-31\n",
        "2:cancelled_on: found '2026-10-31', expected a day on or after started_on, 2026-11-01",
    ),
    "unknown subscription": (
        "service_plans",
        "S-99,2026-01-01,2026-02-01,1.00,Expired\n",
        "2:subscription_ref: found 'S-99', expected a known subscription",
    ),
    "end before start": (
        "service_plans",
        "S-5,2026-02-01,2026-02-01,1.00,Expired\n",
        "2:end_date: found '2026-02-01', expected a day after start_date, 2026-02-01",
    ),
    "no status": (
        "service_plans",
        "S-5,2026-02-01,2026-03-01,1.00,active\n",
        "2:status: found 'active', expected one of Pending, Active, Expired, Cancelled",
    ),
    "decimals of a term": (
        "service_plans",
        "S-3,2026-02-01,2026-03-01,100.25,Expired\n",
        "2:price: found '100.25', expected at most 0 decimals in JPY",
    ),
    "term twice": (
        "service_plans",
        "S-5,2026-01-01,2026-02-01,1.00,Expired\nS-5,2026-02-01,2026-03-01,1.00,Expired\n"
        "S-5,2026-01-01,2026-02-01,1.00,Expired\n",
        "4:start_date: found '2026-01-01', expected each start_date of a subscription once; line 2 "
        "has it already",
    ),
    "overlapping terms": (
        "service_plans",
        "S-5,2026-01-01,2026-02-01,1.00,Expired\nS-5,2026-01-31,2026-02-28,1.00,Expired\n",
        "3:start_date: found '2026-01-31', expected 2026-02-01 or later: until then runs an "
        "earlier term of the subscription",
    ),
    "order in the middle": (
        "service_plans",
        "S-5,2026-01-01,2026-02-01,1.00,Pending\nS-5,2026-02-01,2026-03-01,1.00,Active\n",
        "3:start_date: found '2026-02-01', expected no term behind a Pending order, which is the "
        "last one of its subscription",
    ),
    "history before known terms": (
        "service_plans",
        "S-1,2026-07-15,2026-08-15,1.00,Expired\n",
        "2:start_date: found '2026-07-15', expected 2026-11-15 or later: until then runs the last "
        "known term of the subscription",
    ),
    "add-on without price": (
        "service_plans",
        "S-6,2026-10-02,2026-11-01,12.00,Active\n",
        "2:subscription_ref: found 'S-6', expected a subscription whose add-ons have a price in "
        "USD for a term of P30D on 2026-10-02; none has: storage",
    ),
    "amount in words": (
        "transactions",
        "bank,r1,,ten,USD,Success,2026-11-01T10:00:00Z,\n",
        "2:amount: found 'ten', expected a number with a decimal point such as 1234.50",
    ),
    "amount that is none": (
        "transactions",
        "bank,r1,,NaN,USD,Success,2026-11-01T10:00:00Z,\n",
        "2:amount: found 'NaN', expected a number with a decimal point such as 1234.50",
    ),
    "time that is none": (
        "transactions",
        "bank,r1,,10,USD,Success,2026-11-01T25:00:00Z,\n",
        "2:occurred_at: found '2026-11-01T25:00:00Z', expected a date and time such as "
        "2026-01-31T10:15:00Z",
    ),
}


@pytest.fixture(scope="module")
def engine(base_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    more = {"subscriptions": HEADERS["subscriptions"] + "\nS-6,C-1,flex,2026-10-02,true,,storage\n"}
    take(base_engine, tmp_path_factory.mktemp("more"), more)
    return base_engine


@pytest.mark.parametrize("case", CASES)
def test_one_message_per_bad_line_and_nothing_imported(
    engine: Engine, folder: Path, case: str
) -> None:
    name, content, message = CASES[case]
    if isinstance(content, str):
        content = f"{HEADERS[name]}\n{content}"
    before = dump(engine)
    report = take(engine, folder, {name: content})[name]
    assert report.errors == [f"{name}.csv:{message}"]
    assert (report.status, report.added, report.changed) == ("refused", 0, 0)
    assert dump(engine) == before


def test_each_bad_line_has_its_message_and_good_lines_are_not_taken(
    engine: Engine, folder: Path
) -> None:
    before = dump(engine)
    lines = [
        "C-9,Good,,US,USD,false",
        "C-10,Bad,,US,XXX,perhaps",
        "C-11,Bad,,US,XXX,false",
        "C-12,Good,,US,USD,false",
        "C-12,Bad,,US,USD,false",
    ]
    content = "\n".join([HEADERS["customers"], *lines])
    report = take(engine, folder, {"customers": content})["customers"]
    assert [error.split(": ")[0] for error in report.errors] == [
        "customers.csv:3:tax_exempt",
        "customers.csv:4:currency",
        "customers.csv:6:customer_ref",
    ]
    assert report.rows == 5
    assert dump(engine) == before


def test_after_a_thousand_messages_the_rest_is_counted(engine: Engine, folder: Path) -> None:
    content = HEADERS["customers"] + "\n" + "C-9,Bad,,US,USD,perhaps\n" * 1234
    report = take(engine, folder, {"customers": content})["customers"]
    assert len(report.errors) == 1001
    assert report.errors[-1] == "customers.csv: 234 more lines are bad"


def test_what_needs_a_refused_file_is_skipped_with_one_line(engine: Engine, folder: Path) -> None:
    files: dict[str, Any] = {**BASE, "plans": BASE["plans"] + "bad,Bad,P1M,USD,-1,\n"}
    reports = take(engine, folder, files)
    assert {name: report.status for name, report in reports.items()} == {
        "customers": "unchanged",
        "plans": "refused",
        "addons": "unchanged",
        "tax_rates": "unchanged",
        "subscriptions": "skipped",
        "service_plans": "skipped",
    }
    assert reports["subscriptions"].errors == [
        "subscriptions.csv: skipped, because it needs plans.csv"
    ]
    assert reports["service_plans"].errors == [
        "service_plans.csv: skipped, because it needs plans.csv"
    ]


def test_a_line_is_counted_where_it_begins(engine: Engine, folder: Path) -> None:
    content = HEADERS["customers"] + '\n\nC-9,"Two\nlines",,US,USD,false\nC-10,Bad,,XX,USD,false\n'
    report = take(engine, folder, {"customers": content})["customers"]
    assert [error.split(" ")[0] for error in report.errors] == ["customers.csv:5:country:"]


def test_a_directory_without_import_files_is_an_error(engine: Engine, folder: Path) -> None:
    write(folder, {"customer": BASE["customers"]})
    with pytest.raises(ImportRefused, match="none of the import files: customers"):
        import_directory(engine, folder, as_of=AS_OF, grace_days=7)
