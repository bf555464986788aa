"""Stripe's balance transactions, in the columns of two generations."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, take, write

HEADER = (
    "balance_transaction_id,created_utc,currency,gross,reporting_category,source_id,description"
)


def one(engine: Engine, folder: Path, row: str, header: str = HEADER) -> list[tuple[str, ...]]:
    report = take(engine, write(folder, "balance.csv", f"{header}\n{row}\n"))
    assert report.errors == []
    return landed(engine, "provider_ref, status, amount, currency, invoice_number, customer_ref")


def test_the_itemized_report(engine: Engine) -> None:
    report = take(engine, FILES / "balance_itemized.csv")
    assert (report.format, report.status, report.rows) == ("stripe", "imported", 12)
    assert (report.landed, report.known) == (10, 0)
    assert report.skipped == {"payout": 1, "fee": 1}
    assert report.unknown == {"refund_failure": 1}
    columns = "provider_ref, status, amount, currency, invoice_number, customer_ref"
    assert landed(engine, columns) == [
        ("ch_A1", "Success", "107.25", "USD", "INV-2026-000001", "C-1001"),
        ("ch_A2", "Success", "20.00", "USD", "INV-2026-000002", "C-1002"),
        ("ch_A2", "Refunded", "5.00", "USD", "CN-2026-000001", "C-1002"),
        ("ch_A2", "Refunded", "5.00", "USD", None, "C-1002"),
        ("ch_A1", "Chargeback", "107.25", "USD", "INV-2026-000001", "C-1001"),
        ("ch_A1", "ChargebackReversed", "107.25", "USD", "INV-2026-000001", "C-1001"),
        # Settled in euros, paid in dollars: the invoice is in dollars.
        ("ch_A3", "Success", "48.00", "USD", "INV-2026-000003", "C-1003"),
        ("py_A4", "Success", "500", "JPY", "INV-2026-000004", "C-1004"),
        ("py_A4", "Failed", "500", "JPY", "INV-2026-000004", "C-1004"),
        ("ch_A2", "refund_failure", "5.00", "USD", None, "C-1002"),
    ]
    assert {row[0] for row in landed(engine, "provider")} == {"stripe"}


def test_two_refunds_of_the_same_moment_are_two(engine: Engine) -> None:
    take(engine, FILES / "balance_itemized.csv")
    moments = landed(engine, "provider_ref, status, occurred_at")
    assert [row[2] for row in moments if row[:2] == ("ch_A2", "Refunded")] == [
        "2026-10-02 10:00:00+00:00",
        "2026-10-02 10:00:00.000001+00:00",
    ]


def test_the_same_file_again_adds_nothing(engine: Engine) -> None:
    take(engine, FILES / "balance_itemized.csv")
    before = landed(engine, "transaction_id, provider_ref, occurred_at")
    again = take(engine, FILES / "balance_itemized.csv")
    assert (again.status, again.landed, again.known) == ("unchanged", 0, 10)
    assert landed(engine, "transaction_id, provider_ref, occurred_at") == before


def test_the_rows_in_another_order_are_the_same_events(engine: Engine, tmp_path: Path) -> None:
    take(engine, FILES / "balance_itemized.csv")
    header, *rows = (FILES / "balance_itemized.csv").read_text().splitlines()
    turned = write(tmp_path, "turned.csv", "\n".join([header, *reversed(rows)]))
    assert take(engine, turned).landed == 0


def test_the_balance_history_of_older_years(engine: Engine) -> None:
    report = take(engine, FILES / "balance_history.csv")
    assert (report.errors, report.landed) == ([], 5)
    assert report.skipped == {"adjustment": 1, "transfer": 1}
    assert landed(
        engine, "provider_ref, status, amount, currency, invoice_number, occurred_at"
    ) == [
        ("ch_E1", "Success", "30.00", "USD", "INV-2022-000007", "2022-04-23 21:56:00+00:00"),
        ("ch_E1", "Refunded", "30.00", "USD", "INV-2022-000007", "2022-05-02 10:01:00+00:00"),
        # The export does not name its charge: the only payment of that invoice.
        ("ch_E1", "Refunded", "4.00", "USD", "INV-2022-000007", "2022-05-02 11:01:00+00:00"),
        ("ch_E4", "Chargeback", "30.00", "USD", None, "2022-05-04 12:00:00+00:00"),
        ("py_E5", "Success", "12.5", "EUR", None, "2022-05-06 00:00:00+00:00"),
    ]


def test_a_provider_of_ones_own(engine: Engine) -> None:
    take(engine, FILES / "balance_itemized.csv", provider="stripe-japan")
    assert {row[0] for row in landed(engine, "provider")} == {"stripe-japan"}
    # Another account: not the same events.
    assert take(engine, FILES / "balance_itemized.csv").landed == 10


@pytest.mark.parametrize(
    ("row", "column", "found", "expected"),
    [
        ("txn_1,{t},usd,-5.00,charge,ch_1,", "gross", "'-5.00'", "a positive charge"),
        ("txn_1,{t},usd,5.00,refund,re_1,", "gross", "'5.00'", "a negative refund"),
        ("txn_1,{t},usd,1e3,charge,ch_1,", "gross", "'1e3'", "a decimal number"),
        ("txn_1,{t},usd,NaN,charge,ch_1,", "gross", "'NaN'", "a decimal number"),
        ("txn_1,{t},usd,Infinity,charge,ch_1,", "gross", "'Infinity'", "a decimal"),
        ("txn_1,{t},usd,,charge,ch_1,", "gross", "nothing", "a decimal number"),
        ('txn_1,{t},kwd,"1,234",charge,ch_1,', "gross", "'1,234'", "a decimal point"),
        ('txn_1,{t},usd,"1,234.50",charge,ch_1,', "gross", "'1,234.50'", "a decimal"),
        ("txn_1,{t},,5.00,charge,ch_1,", "currency", "nothing", "a currency"),
        ("txn_1,01.10.2026,usd,5.00,charge,ch_1,", "created_utc", "'01.10.2026'", "a date"),
        ("txn_1,{t},usd,5.00,,ch_1,", "reporting_category", "nothing", "a reporting"),
        ("po_1,{t},usd,5.00,charge,ch_1,", "balance_transaction_id", "'po_1'", "the id"),
        ("txn_1,{t},usd,5.00,charge", "-", "5 fields", "7, one for each column"),
        ("txn_1,{t},usd,5.00,charge,ch_" + "1" * 300 + ",", "source_id", "303 ch", "at"),
    ],
)
def test_a_row_that_cannot_be_read_refuses_the_file(
    engine: Engine, tmp_path: Path, row: str, column: str, found: str, expected: str
) -> None:
    good = "txn_0,2026-10-01 08:00:00,usd,5.00,charge,ch_0,"
    bad = row.replace("{t}", "2026-10-01 08:00:00")
    path = write(tmp_path, "balance.csv", f"{HEADER}\n{good}\n{bad}\n")
    report = take(engine, path)
    (error,) = report.errors
    assert error.startswith(f"balance.csv:3:{column}: found {found}")
    assert f"expected {expected}" in error
    assert (report.status, report.rows, report.landed) == ("refused", 2, 0)
    assert landed(engine) == []


def test_every_fault_is_told(engine: Engine, tmp_path: Path) -> None:
    rows = "\n".join(f"txn_{n},2026-10-01 08:00:00,usd,x,charge,ch_{n}," for n in range(1500))
    report = take(engine, write(tmp_path, "balance.csv", f"{HEADER}\n{rows}\n"))
    assert len(report.errors) == 1001
    assert report.errors[-1] == "balance.csv: 500 more lines are bad"


def test_what_is_not_known_stays_the_providers_word(engine: Engine, tmp_path: Path) -> None:
    row = "txn_1,2026-10-01 08:00:00,usd,-5.00,Payment_Reversal,ch_1,"
    assert one(engine, tmp_path, row) == [("ch_1", "Payment_Reversal", "-5.00", "USD", None, None)]


def test_metadata_of_the_payment_comes_first(engine: Engine, tmp_path: Path) -> None:
    header = HEADER + ",refund_metadata[Invoice_Number],payment_metadata[Invoice_Number]"
    row = "txn_1,2026-10-01 08:00:00,usd,-5.00,refund,ch_1,INV-2026-000009,INV-2026-000001,{}"
    both = one(engine, tmp_path, row.format("INV-2026-000002"), header)
    assert both[0][4] == "INV-2026-000002"


def test_a_created_column_without_utc_is_local(engine: Engine, tmp_path: Path) -> None:
    from zoneinfo import ZoneInfo

    header = HEADER.replace("created_utc", "created")
    row = "txn_1,2026-10-01 08:00:00,usd,5.00,charge,ch_1,"
    path = write(tmp_path, "balance.csv", f"{header}\n{row}\n")
    take(engine, path, timezone=ZoneInfo("Asia/Tokyo"))
    assert landed(engine, "occurred_at") == [("2026-09-30 23:00:00+00:00",)]
