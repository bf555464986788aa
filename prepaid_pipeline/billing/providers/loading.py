"""Storing a provider's file as payment records: all or nothing, in one transaction."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Engine

from prepaid_pipeline.billing import payment_matching
from prepaid_pipeline.billing.providers.formats import BY_NAME, recognised
from prepaid_pipeline.billing.providers.records import STATUSES, Payment, PaymentsReport, Source
from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.errors import ImportRefused
from prepaid_pipeline.importer import delivered
from prepaid_pipeline.importer.loading import MANY_ROWS
from prepaid_pipeline.importer.reports import Problems

_LAND = "billing/land_payments"
_COLUMN_TYPES = (
    "int4",
    "text",
    "text",
    "text",
    "text",
    "numeric",
    "text",
    "text",
    "timestamptz",
    "text",
    "text[]",
    "bool",
    "text",
    "int4",
    "jsonb",
)
# Before the payments that others belong to have their references, and after it.
_KNOWN_ENTRIES = ("number_entries", "drop_known_entries", "recognised")
_RECOGNISED = ("note_recognised", "drop_recognised", "tell_recognised_apart")


def import_payments(
    engine: Engine,
    path: Path,
    *,
    file_format: str | None = None,
    provider: str | None = None,
    timezone: tzinfo = UTC,
    on_read: Callable[[int], None] = lambda _: None,
) -> PaymentsReport:
    """Import one file. ``file_format`` and ``provider`` are found in the file when they are None.

    ``timezone`` is that of moments without an offset, and of days; ``on_read`` gets the bytes read
    so far. The report of a refused file has one message per fault, and nothing of it is stored.
    """
    problems = Problems(path.name)
    source = Source(path, provider, timezone, problems, on_read)
    report = PaymentsReport(path.name, file_format or "", "unchanged")
    try:
        report.format = file_format or recognised(path).name
        with connections.transaction(engine, actor="payments import") as connection:
            _land(connection, BY_NAME[report.format].read(source), source, report)
            if problems:
                raise ImportRefused(path.name)
    except ImportRefused:
        report = PaymentsReport(path.name, report.format, "refused", errors=problems.messages())
    except OSError as error:
        message = f"{path.name}: cannot be read: {error.strerror}"
        report = PaymentsReport(path.name, report.format, "refused", errors=[message])
    report.rows = source.rows
    return report


def _land(
    connection: Connection, payments: Iterable[Payment], source: Source, report: PaymentsReport
) -> None:
    # Two imports at once would compare with the same old state: the second waits for the first.
    queries.statement("importer/start").execute(connection, {})
    queries.statement(_LAND, "incoming").execute(connection, {})
    given, unknown = _copy(connection, payments)
    if source.problems:
        return
    queries.statement(_LAND, "statistics").execute(connection, {})
    if BY_NAME[report.format].has_entries:
        _drop_known_entries(connection)
        queries.statement(_LAND, "name_entries").execute(connection, {"returns": False})
    for part in ("originals", "refunded_since", "told_before"):
        queries.statement(_LAND, part).execute(connection, {})
    if BY_NAME[report.format].has_entries:
        queries.statement(_LAND, "name_entries").execute(connection, {"returns": True})
    report.landed = queries.statement(_LAND, "land").execute(connection, {}).scalar_one()
    if report.landed >= MANY_ROWS:
        queries.statement(_LAND, "analyze").execute(connection, {})
    report.known = given - report.landed
    report.skipped, report.unknown = dict(source.skipped), dict(unknown)
    report.status = "imported" if report.landed else "unchanged"


def _drop_known_entries(connection: Connection) -> None:
    for part in _KNOWN_ENTRIES:
        found = queries.statement(_LAND, part).execute(connection, {}).rowcount
    if found:
        # The references and outcomes of records change: not while they are being judged.
        payment_matching.one_at_a_time(connection)
        for part in _RECOGNISED:
            queries.statement(_LAND, part).execute(connection, {})


def _row(payment: Payment) -> tuple[Any, ...]:
    """The payment as it is copied: what the columns do not hold stands behind it as text."""
    beyond: dict[str, str] = {}
    if not delivered.is_held(payment.amount):
        beyond["amount"] = str(payment.amount)
    if isinstance(payment.occurred_at, str):
        beyond["occurred_at"] = payment.occurred_at
    if not beyond:
        return (*payment, None)
    held = {name: None for name in beyond}
    return (*(held.get(name, value) for name, value in payment._asdict().items()), Jsonb(beyond))


def _copy(connection: Connection, payments: Iterable[Payment]) -> tuple[int, Counter[str]]:
    """How many payments the source gave, and how many have each status that is not known."""
    given, unknown = 0, Counter[str]()
    driver: Any = connection.connection.driver_connection
    command = queries.statement(_LAND, "copy").clause.text
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        copy.set_types(_COLUMN_TYPES)
        for payment in payments:
            copy.write_row(_row(payment))
            given += 1
            if payment.status not in STATUSES:
                unknown[payment.status] += 1
    return given, unknown
