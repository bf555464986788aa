"""What an import makes of a valid folder, and of the same folder again."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.context import Context
from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.process import steps
from tests.importer.folders import AS_OF, BASE, dump, rows, take, write


@pytest.fixture
def filled(engine: Engine, folder: Path) -> Engine:
    reports = take(engine, folder, dict(BASE))
    assert {name: (r.status, r.rows, r.added, r.changed) for name, r in reports.items()} == {
        "customers": ("imported", 3, 3, 0),
        "plans": ("imported", 5, 5, 0),
        "addons": ("imported", 3, 3, 0),
        "tax_rates": ("imported", 2, 2, 0),
        "subscriptions": ("imported", 5, 5, 0),
        "service_plans": ("imported", 5, 5, 0),
    }
    return engine


def test_terms_carry_what_was_sold(filled: Engine) -> None:
    # A one-time add-on belongs to the first term only.
    assert rows(
        filled,
        """
        SELECT p.start_date::text, p.kind, p.origin, p.status, p.activated_on = p.start_date,
               p.net_amount, p.recurring_amount, p.monthly_amount, p.customer_name, p.email,
               p.country, p.plan_name, p.tax_class, p.tax_exempt,
               (SELECT string_agg(a ->> 'addon_code', ';') FROM jsonb_array_elements(addons) a)
        FROM prepaid.service_plans p JOIN prepaid.subscriptions USING (subscription_id)
        WHERE subscription_ref = 'S-1' ORDER BY p.start_date
        """,
    ) == [
        (
            start,
            kind,
            "imported",
            status,
            True,
            net,
            12,
            12,
            "Amber Bakery",
            "amber@example.com",
            "US",
            "Basic",
            "standard",
            False,
            addons,
        )
        for start, kind, status, net, addons in (
            ("2026-08-15", "new", "Expired", 17, "set-up;storage"),
            ("2026-09-15", "renewal", "Expired", 12, "storage"),
            ("2026-10-15", "renewal", "Active", 12, "storage"),
        )
    ]


def test_terms_of_a_subscription_are_a_chain(filled: Engine) -> None:
    assert rows(
        filled,
        """
        SELECT p.start_date::text, previous.start_date::text
        FROM prepaid.service_plans p JOIN prepaid.subscriptions s USING (subscription_id)
        LEFT JOIN prepaid.service_plans previous
            ON previous.service_plan_id = p.previous_plan_id
        WHERE s.subscription_ref = 'S-1' ORDER BY p.start_date
        """,
    ) == [("2026-08-15", None), ("2026-09-15", "2026-08-15"), ("2026-10-15", "2026-09-15")]


def test_the_same_folder_again_changes_nothing(filled: Engine, folder: Path) -> None:
    before = dump(filled)
    reports = take(filled, folder, dict(BASE))
    assert {r.status for r in reports.values()} == {"unchanged"}
    assert all(not (r.added or r.changed or r.differences or r.errors) for r in reports.values())
    assert dump(filled) == before


def test_order_of_columns_byte_order_mark_and_line_ends_do_not_matter(
    filled: Engine, folder: Path
) -> None:
    lines = [line.split(",") for line in BASE["customers"].splitlines()]
    turned = "\r\n".join(",".join(f" {field} " for field in reversed(line)) for line in lines)
    before = dump(filled)
    assert take(filled, folder, {"customers": "\ufeff" + turned})["customers"].status == "unchanged"
    assert dump(filled) == before


CHANGES = {
    "customer": (
        "customers",
        "C-1,Amber Bakery,amber@",
        "C-1,Amber Bakery Ltd,new@",
        "SELECT name, email FROM prepaid.customers WHERE customer_ref = 'C-1'",
        ("Amber Bakery Ltd", "new@example.com"),
        ("customer_changed", "email, name"),
    ),
    "price": (
        "plans",
        "basic,Basic,P1M,USD,10.00",
        "basic,Basic,P1M,USD,11.50",
        "SELECT price FROM prepaid.plan_prices JOIN prepaid.plans USING (plan_id)"
        " WHERE plan_code = 'basic' AND currency = 'USD'",
        (Decimal("11.5"),),
        ("plan_price_changed", "currency USD, valid_from 1900-01-01; price: 10.00 -> 11.50"),
    ),
    "price taken away": (
        "plans",
        "flex,Flex,P30D,USD,12.00",
        "flex,Flex,P30D,USD,",
        "SELECT price FROM prepaid.plan_prices JOIN prepaid.plans USING (plan_id)"
        " WHERE plan_code = 'flex'",
        (None,),
        ("plan_price_changed", "currency USD, valid_from 1900-01-01; price: 12.00 -> none"),
    ),
    "plan": (
        "plans",
        "flex,Flex,P30D,USD,,",
        "flex,Flex,P30D,USD,,reduced",
        "SELECT tax_class FROM prepaid.plans WHERE plan_code = 'flex'",
        ("reduced",),
        ("plan_changed", "tax_class: standard -> reduced"),
    ),
    "add-on": (
        "addons",
        "set-up,Set-up,",
        "set-up,Installation,",
        "SELECT name FROM prepaid.addons WHERE addon_code = 'set-up'",
        ("Installation",),
        ("addon_changed", "name: Set-up -> Installation"),
    ),
    "add-on price": (
        "addons",
        "storage,Storage,P1M,EUR,1.90",
        "storage,Storage,P1M,EUR,2.10",
        "SELECT price FROM prepaid.addon_prices WHERE currency = 'EUR'",
        (Decimal("2.1"),),
        (
            "addon_price_changed",
            "term_months 1, term_days 0, currency EUR, valid_from 1900-01-01; price: 1.90 -> 2.10",
        ),
    ),
    "tax rate": (
        "tax_rates",
        "DE,standard,0.19",
        "DE,standard,0.20",
        "SELECT rate FROM prepaid.tax_rates WHERE country = 'DE'",
        (Decimal("0.2"),),
        (
            "tax_rate_changed",
            "country DE, tax_class standard, valid_from 2021-01-01; rate: 0.19 -> 0.20",
        ),
    ),
    "subscription": (
        "subscriptions",
        "basic,2026-09-20,true,8.50",
        "basic,2026-09-20,false,8.00",
        "SELECT auto_renew, price FROM prepaid.subscriptions WHERE subscription_ref = 'S-2'",
        (False, 8),
        ("subscription_changed", "auto_renew: true -> false, price: 8.50 -> 8.00"),
    ),
    "add-ons of a subscription": (
        "subscriptions",
        ",storage;set-up",
        ",storage",
        "SELECT string_agg(addon_code, ';') FROM prepaid.subscription_addons"
        " JOIN prepaid.addons USING (addon_id)",
        ("storage",),
        ("subscription_changed", "addons: set-up;storage -> storage"),
    ),
}


def test_what_changed_is_updated_and_audited(filled: Engine, folder: Path) -> None:
    files = dict(BASE)
    for case, (name, old, new, query, expected, entry) in CHANGES.items():
        assert old in files[name], case
        files[name] = files[name].replace(old, new)
        report = take(filled, folder, {name: files[name]})[name]
        assert (report.status, report.added, report.changed) == ("imported", 0, 1), case
        assert rows(filled, query) == [expected], case
        log = "SELECT event, detail, actor, as_of::text FROM prepaid.audit_log ORDER BY audit_id"
        entries = rows(filled, log)
        assert entries[-1] == (*entry, "import", "2026-11-01"), case
    assert len(entries) == len(CHANGES)


def test_a_file_without_an_optional_column_says_nothing_about_it(
    filled: Engine, folder: Path
) -> None:
    head, *lines = BASE["subscriptions"].splitlines()
    ended = "\n".join([f"{head},cancelled_on", *(f"{line},2026-12-01" for line in lines)])
    assert take(filled, folder, {"subscriptions": ended})["subscriptions"].changed == 5
    plans = "plan_code,name,term,currency,price\npartner,Partner,P1Y,USD,\n"
    again: dict[str, Any] = {"subscriptions": BASE["subscriptions"], "plans": plans}
    assert {r.status for r in take(filled, folder, again).values()} == {"unchanged"}


def test_a_start_that_moves_takes_the_anchor_along_until_there_are_terms(
    filled: Engine, folder: Path
) -> None:
    moved = BASE["subscriptions"].replace("2026-11-02", "2026-11-30").replace("08-15", "08-14")
    assert take(filled, folder, {"subscriptions": moved})["subscriptions"].changed == 2
    query = """SELECT subscription_ref, anchor_date::text FROM prepaid.subscriptions
               WHERE subscription_ref IN ('S-1', 'S-5') ORDER BY 1"""
    assert rows(filled, query) == [("S-1", "2026-08-15"), ("S-5", "2026-11-30")]


def test_trailing_zeros_are_no_decimals(filled: Engine, folder: Path) -> None:
    plans = BASE["plans"].replace("JPY,1000", "JPY,1100.00")
    assert take(filled, folder, {"plans": plans})["plans"].changed == 1
    query = "SELECT price::text FROM prepaid.plan_prices WHERE currency = 'JPY'"
    assert rows(filled, query) == [("1100",)]


def test_progress_rises_to_the_whole(engine: Engine, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    write(folder, dict(BASE))
    import_directory(
        engine, folder, as_of=AS_OF, grace_days=7, on_progress=lambda *step: told.append(step)
    )
    names, done, totals = zip(*told, strict=True)
    assert list(dict.fromkeys(names)) == [f"{name}.csv" for name in BASE]
    assert list(done) == sorted(done)
    assert {done[-1]} == set(totals)


def test_no_subscription_is_a_purchase_while_its_history_is_refused(
    engine: Engine, folder: Path
) -> None:
    """They have run for months: opened as new they would be invoiced a second time."""
    good = BASE["service_plans"]
    bad = dict(BASE) | {"service_plans": good + "S-1,2026-11-15,not a date,12,Active\n"}
    reports = take(engine, folder, bad)
    assert reports["service_plans"].status == "refused"
    at = Context(AS_OF, 7, 7)
    assert steps.open_service_plans(engine, at) == 0
    found = {result.name: result.findings for result in invariants.run(engine, at)}
    assert len(found["14_history_has_arrived"]) == 5

    assert take(engine, folder, dict(BASE))["service_plans"].status == "imported"
    assert rows(engine, "SELECT count(*) FROM prepaid.subscriptions_awaiting_history") == [(0,)]


def test_without_a_file_of_terms_subscriptions_are_purchases(engine: Engine, folder: Path) -> None:
    bad = dict(BASE) | {"service_plans": "not,the,header\n"}
    take(engine, folder, bad)
    (folder / "service_plans.csv").unlink()
    take(engine, folder, {name: text for name, text in BASE.items() if name != "service_plans"})
    assert rows(engine, "SELECT count(*) FROM prepaid.subscriptions_awaiting_history") == [(0,)]
