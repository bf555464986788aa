"""Exports that are broken, or none of Stripe's: refused with one clear line, and nothing lands."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, take, write

HEADER = "balance_transaction_id,created_utc,currency,gross,reporting_category,source_id"
ROW = "txn_1,2026-10-01 08:00:00,usd,5.00,charge,ch_1"


def test_a_byte_order_mark_and_other_line_ends(engine: Engine, tmp_path: Path) -> None:
    file = f"\ufeff{HEADER}\r\n{ROW}\r\n\r\n"
    assert take(engine, write(tmp_path, "a.csv", file)).landed == 1


def test_ten_thousand_columns(engine: Engine, tmp_path: Path) -> None:
    extra = [f"key_{n} (metadata)" for n in range(10_000)]
    header = ",".join([HEADER, *extra, "invoice_number (metadata)"])
    wide = ",".join([ROW, *("" for _ in extra), "INV-2026-000001"])
    assert take(engine, write(tmp_path, "a.csv", f"{header}\n{wide}\n")).landed == 1
    assert landed(engine, "invoice_number") == [("INV-2026-000001",)]
    report = take(engine, write(tmp_path, "a.csv", f"{header}\n{ROW}\n"))
    assert report.errors == ["a.csv:2:-: found 6 fields, expected 10007, one for each column"]


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("", "a.csv:1:-: found an empty file, expected Stripe's balance transactions"),
        ("\n\n", "a.csv:1:-: found an empty file"),
        (f"{HEADER}\n{ROW}\n".replace(",", ";"), "a.csv:1:-: found the header 'balance_"),
        ("provider,provider_ref,amount\nx,y,1\n", "a.csv:1:-: found the header 'provider,"),
        (f"{HEADER},Currency\n{ROW},usd\n", "a.csv:2:currency: found this column twice"),
        (f'{HEADER}\n{ROW},"x', "a.csv:2:-: found broken CSV"),
        (f"{HEADER}\n{ROW.replace('ch_1', 'ch_1' + chr(0))}\n", "a.csv:2:source_id: found a NUL"),
        (f"{HEADER}\n{ROW[:30]}", "a.csv:2:-: found 4 fields, expected 6"),
        (b"\xff\xfe" + f"{HEADER}\n".encode("utf-16-le"), "a.csv:1:-: found "),
        (f"{HEADER}\n{ROW}ü\n".encode("latin-1"), "a.csv:2:source_id: found the byte 0xFC"),
        (HEADER + "x" * (1 << 21), "a.csv:1:-: found a line longer than 1,048,576 bytes"),
    ],
    ids=range(11),
)
def test_what_cannot_be_read(engine: Engine, tmp_path: Path, file: str | bytes, error: str) -> None:
    report = take(engine, write(tmp_path, "a.csv", file))
    assert (report.status, report.landed) == ("refused", 0)
    (message,) = report.errors
    assert message.startswith(error)
    assert landed(engine) == []


def test_the_payouts_export_is_no_payment(engine: Engine, tmp_path: Path) -> None:
    payouts = (
        "id,Amount,Created (UTC),Currency,Status,Type\npo_1,5.00,2026-10-01 08:00,usd,paid,card\n"
    )
    (message,) = take(engine, write(tmp_path, "a.csv", payouts)).errors
    assert "the id of a balance transaction (txn_…)" in message


def test_a_file_that_cannot_be_opened(engine: Engine, tmp_path: Path) -> None:
    report = take(engine, tmp_path / "nothing.csv")
    assert report.errors == ["nothing.csv: cannot be read: No such file or directory"]


def test_the_format_that_the_caller_names_counts(engine: Engine, tmp_path: Path) -> None:
    report = take(engine, FILES / "statement_02.xml", file_format="stripe")
    assert (report.format, report.status) == ("stripe", "refused")
    report = take(engine, FILES / "payments.csv", file_format="camt053")
    assert "broken XML" in report.errors[0]
