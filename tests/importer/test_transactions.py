"""Providers' records land as they are."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from prepaid_pipeline.importer.loading import import_directory
from tests.importer.folders import AS_OF, rows, take, write

RECORDS = """\
provider,provider_ref,invoice_number,amount,currency,status,occurred_at
bank,r1,INV-2026-000001,107.25,USD,Success,2026-11-02T09:30:00+01:00
bank,r1,INV-2026-000001,107.25,USD,Success,2026-11-02T08:30:00Z
bank,r2,,-12,ZZZ,on its way,2026-11-02T10:00:00
"""


def test_nothing_a_provider_says_is_refused_and_an_event_lands_once(
    engine: Engine, folder: Path
) -> None:
    report = take(engine, folder, {"transactions": RECORDS})["transactions"]
    assert (report.status, report.rows, report.added) == ("imported", 3, 2)
    query = """SELECT provider_ref, invoice_number, amount, currency, status, customer_ref
               FROM prepaid.transactions ORDER BY transaction_id"""
    landed = [
        ("r1", "INV-2026-000001", 107.25, "USD", "Success", None),
        ("r2", None, -12, "ZZZ", "on its way", None),
    ]
    assert [tuple(map(_plain, row)) for row in rows(engine, query)] == landed
    again = take(engine, folder, {"transactions": RECORDS})["transactions"]
    assert (again.status, again.rows, again.added) == ("unchanged", 3, 0)
    assert len(rows(engine, query)) == 2


def test_a_time_without_offset_is_local(engine: Engine, folder: Path) -> None:
    write(folder, {"transactions": RECORDS})
    zone = ZoneInfo("Asia/Tokyo")
    import_directory(engine, folder, as_of=AS_OF, grace_days=7, timezone=zone)
    query = "SELECT occurred_at FROM prepaid.transactions ORDER BY transaction_id"
    moments = [moment.astimezone(UTC) for (moment,) in rows(engine, query)]
    assert moments == [
        datetime(2026, 11, 2, 8, 30, tzinfo=UTC),
        datetime(2026, 11, 2, 1, 0, tzinfo=UTC),
    ]


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str) else float(str(value))
