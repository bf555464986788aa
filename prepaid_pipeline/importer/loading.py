"""Taking a directory of import files into the database: all or nothing per file.

Each file has its statements in ``sql/importer/<file>.sql``, all run in one transaction in the order
that ``parts.py`` gives.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, tzinfo
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Row

from prepaid_pipeline.database import connections, queries
from prepaid_pipeline.errors import ImportRefused
from prepaid_pipeline.importer.files import File, files
from prepaid_pipeline.importer.parts import PARTS
from prepaid_pipeline.importer.reading import Reader
from prepaid_pipeline.importer.reports import MAX_MESSAGES, FileReport, Problems, quoted

# From here on the planner's old statistics are wrong enough to choose slow plans.
MANY_ROWS = 1000

Progress = Callable[[str, int, int], None]


def import_directory(
    engine: Engine,
    directory: Path,
    *,
    as_of: date,
    grace_days: int,
    timezone: tzinfo = UTC,
    reporting_currency: str | None = None,
    on_progress: Progress | None = None,
) -> list[FileReport]:
    """Import every file of ``directory`` that exists, each in a transaction of its own.

    ``as_of`` is the business date, ``grace_days`` the days after a term's end until which the next
    one is a renewal, ``timezone`` that of moments without an offset, ``reporting_currency`` that of
    exchange rates which name none. ``on_progress`` is called with the file that is taken, the work
    done so far and all work (in bytes, twice each).

    Returns one report per existing file, in dependency order. Raises ImportRefused when there is
    no import file at all.
    """
    every = files(timezone)
    present = [file for file in every if (directory / file.filename).is_file()]
    if not present:
        expected = ", ".join(file.filename for file in every)
        raise ImportRefused(f"{directory} has none of the import files: {expected}")

    sizes = {file.name: (directory / file.filename).stat().st_size for file in present}
    # Reading a file is half of its work, what the database does with it is the other half.
    total, before = 2 * sum(sizes.values()), 0
    names = {file.name for file in present}
    params = {
        "as_of": as_of,
        "grace_days": grace_days,
        "history_follows": "service_plans" in names,
        "discounts_follow": "discounts" in names,
        "reporting_currency": reporting_currency,
    }
    reports: list[FileReport] = []
    for file in present:

        def on_read(size: int, name: str = file.filename, before: int = before) -> None:
            if on_progress is not None:
                on_progress(name, before + size, total)

        needed = {f"{name}.csv" for name in file.needs}
        refused = [r.file for r in reports if r.status == "refused" and r.file in needed]
        if refused:
            reason = f"{file.filename}: skipped, because it needs {', '.join(refused)}"
            reports.append(FileReport(file.filename, "skipped", errors=[reason]))
        else:
            path = directory / file.filename
            reports.append(_import_file(engine, path, file, dict(params), on_read))
        before += 2 * sizes[file.name]
        if on_progress is not None:
            on_progress(file.filename, before, total)
    return reports


def _import_file(
    engine: Engine,
    path: Path,
    file: File,
    params: dict[str, Any],
    on_read: Callable[[int], None],
) -> FileReport:
    problems = Problems(file.filename)
    reader = Reader(path, file, problems, on_read)
    report = FileReport(file.filename, "unchanged")
    try:
        with connections.transaction(engine, actor="import", as_of=params["as_of"]) as connection:
            _run(connection, file, reader, problems, report, params)
            if problems:
                raise ImportRefused(file.filename)
    except ImportRefused:
        report.status, report.errors = "refused", problems.messages()
        report.differences = []
    except OSError as error:
        report.status = "refused"
        report.errors = [f"{file.filename}: cannot be read: {error.strerror}"]
    report.rows = reader.rows
    return report


def _run(
    connection: Connection,
    file: File,
    reader: Reader,
    problems: Problems,
    report: FileReport,
    params: dict[str, Any],
) -> None:
    parts = PARTS[file.name]

    def run(part: str) -> CursorResult[Any]:
        return queries.statement(f"importer/{file.name}", part).execute(connection, params)

    params["given"] = reader.given
    queries.statement("importer/start").execute(connection, params)
    run("incoming")
    copy = queries.statement(f"importer/{file.name}", "copy")
    _copy(connection, copy.clause.text, reader)
    params["given"] = reader.given
    for part in parts.prepare:
        run(part)
    for part in parts.check:
        for bad in run(part):
            problems.add(bad.line, bad.column_name, quoted(bad.found), bad.expected)
    if problems:
        return
    if parts.differences:
        report.differences = _differences(file, run("differences").all())
    for part in parts.arrive:
        run(part)
    counted = run("count").one()
    report.added, report.changed = counted.added, counted.changed
    if not report.added + report.changed:
        return
    report.status = "imported"
    for part in parts.write:
        run(part)
    if parts.analyze and report.added >= MANY_ROWS:
        run("analyze")


def _differences(file: File, rows: Sequence[Row[Any]]) -> list[str]:
    told = [_difference(file, row) for row in rows[:MAX_MESSAGES]]
    if more := len(rows) - len(told):
        told.append(f"{file.filename}: {more:,} more differences")
    return told


def _difference(file: File, row: Row[Any]) -> str:
    return f"{file.filename}:{row.line}:{row.column_name}: found {quoted(row.found)}, {row.said}"


def _copy(connection: Connection, command: str, reader: Reader) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        for record in reader:
            copy.write_row(record)
