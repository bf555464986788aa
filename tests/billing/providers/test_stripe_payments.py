"""Stripe's payments export: one row per payment, with all that has become of it."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, take, write

HEADER = (
    "id,Created (UTC),Amount,Amount Refunded,Currency,Captured,Mode,Status,Refunded date (UTC),"
    "Disputed Amount,Dispute Status,Dispute Date (UTC)"
)


def export(folder: Path, *rows: str) -> Path:
    return write(folder, "payments.csv", "\n".join([HEADER, *rows]))


def test_the_export(engine: Engine) -> None:
    report = take(engine, FILES / "payments.csv")
    assert (report.format, report.status, report.rows, report.landed) == (
        "stripe",
        "imported",
        9,
        12,
    )
    assert report.skipped == {"test mode": 1}
    assert report.unknown == {}
    assert landed(engine, "provider_ref, status, amount, invoice_number, occurred_at") == [
        ("ch_F1", "Success", "107.25", "INV-2026-000001", "2026-10-01 08:00:01+00:00"),
        ("ch_F2", "Failed", "20.00", "INV-2026-000002", "2026-10-01 09:00:00+00:00"),
        ("ch_F3", "Success", "30.00", "INV-2026-000003", "2026-10-01 10:00:00+00:00"),
        ("ch_F3", "Refunded", "30.00", "INV-2026-000003", "2026-10-04 10:00:00+00:00"),
        ("ch_F4", "Success", "40.00", "INV-2026-000004", "2026-10-01 11:00:00+00:00"),
        ("ch_F4", "Refunded", "15.00", "INV-2026-000004", "2026-10-05 10:00:00+00:00"),
        ("ch_F5", "Success", "50.00", "INV-2026-000005", "2026-10-01 12:00:00+00:00"),
        ("ch_F5", "Chargeback", "50.00", "INV-2026-000005", "2026-10-06 00:00:00+00:00"),
        ("ch_F5", "ChargebackReversed", "50.00", "INV-2026-000005", "2026-10-06 00:00:00+00:00"),
        ("ch_F6", "Success", "60.00", "INV-2026-000006", "2026-10-01 13:00:00+00:00"),
        ("ch_F7", "Pending", "70.00", "INV-2026-000007", "2026-10-01 14:00:00+00:00"),
        ("pi_9", "Unfinished", "90.00", "INV-2026-000009", "2026-10-01 16:00:00+00:00"),
    ]
    assert landed(engine, "customer_ref")[:2] == [("C-1001",), ("C-1002",)]
    again = take(engine, FILES / "payments.csv")
    assert (again.status, again.landed, again.known) == ("unchanged", 0, 12)


def test_the_sum_of_refunds_grows(engine: Engine, tmp_path: Path) -> None:
    row = "ch_1,2026-10-01 08:00,50.00,{},usd,TRUE,Live,Paid,{},,,"
    take(engine, export(tmp_path, row.format("20.00", "2026-10-02 08:00")))
    grown = take(engine, export(tmp_path, row.format("35.00", "2026-10-09 08:00")))
    assert (grown.landed, grown.known) == (1, 1)
    assert landed(engine, "status, amount, occurred_at")[1:] == [
        ("Refunded", "20.00", "2026-10-02 08:00:00+00:00"),
        ("Refunded", "15.00", "2026-10-09 08:00:00+00:00"),
    ]
    assert take(engine, export(tmp_path, row.format("35.00", "2026-10-09 08:00"))).landed == 0


def test_a_refund_known_from_the_balance_is_not_told_twice(engine: Engine, tmp_path: Path) -> None:
    balance = (
        "balance_transaction_id,created_utc,currency,gross,reporting_category,source_id,charge_id"
    )
    row = "txn_1,2026-10-02 08:00:07,usd,-20.00,refund,re_1,ch_1"
    take(engine, write(tmp_path, "balance.csv", f"{balance}\n{row}\n"))
    snapshot = "ch_1,2026-10-01 08:00,50.00,20.00,usd,TRUE,Live,Refunded,2026-10-02 08:00,,,"
    assert take(engine, export(tmp_path, snapshot)).landed == 1
    assert landed(engine) == [("ch_1", "Refunded", "20.00"), ("ch_1", "Success", "50.00")]


def test_a_dispute_that_is_won_later(engine: Engine, tmp_path: Path) -> None:
    row = "ch_1,2026-10-01 08:00,50.00,0.00,usd,TRUE,Live,Paid,,50.00,{},2026-10-05 00:00"
    take(engine, export(tmp_path, row.format("under_review")))
    take(engine, export(tmp_path, row.format("won")))
    assert [status for _, status, _ in landed(engine)] == [
        "Success",
        "Chargeback",
        "ChargebackReversed",
    ]


def test_an_unknown_dispute_is_not_guessed(engine: Engine, tmp_path: Path) -> None:
    row = "ch_1,2026-10-01 08:00,50.00,0.00,usd,TRUE,Live,Paid,,50.00,in_arbitration,2026-10-05"
    report = take(engine, export(tmp_path, row))
    assert report.unknown == {"dispute in_arbitration": 1}
    assert [status for _, status, _ in landed(engine)] == ["Success", "dispute in_arbitration"]


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ("ch_1,2026-10-01,-5.00,0.00,usd,true,Live,Paid,,,,", "Amount", "an amount of 0 or more"),
        ("ch_1,2026-10-01,5.00,6.00,usd,true,Live,Paid,,,,", "Amount Refunded", "of 5.00"),
        ("ch_1,2026-10-01,5.00,0.00,usd,true,Live,Refunded,,,,", "Amount Refunded", "of 5.00"),
        (
            "ch_1,2026-10-01,5.00,5.00,usd,true,Live,Refunded,,,,",
            "Refunded date (UTC)",
            "or import the balance transactions instead",
        ),
        (
            "ch_1,2026-10-01,5.00,0.00,usd,true,Live,Paid,,5.00,lost,",
            "Dispute Date (UTC)",
            "or import the balance transactions instead",
        ),
        ("ch_1,2026-10-01,5.00,0.00,usd,true,Live,,,,,", "Status", "a status such as Paid"),
        ("ch_1,2026-10-01,5.00,0.00,,true,Live,Paid,,,,", "Currency", "a currency"),
        ("INV-1,2026-10-01,5.00,0.00,usd,true,Live,Paid,,,,", "id", "the id of a payment"),
    ],
)
def test_a_row_that_cannot_be_read_refuses_the_file(
    engine: Engine, tmp_path: Path, row: str, column: str, expected: str
) -> None:
    report = take(engine, export(tmp_path, row))
    (error,) = report.errors
    assert error.startswith(f"payments.csv:2:{column}: found ")
    assert expected in error
    assert landed(engine) == []
