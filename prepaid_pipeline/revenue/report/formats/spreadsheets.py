"""The tables of a report for spreadsheets: one sheet each in XLSX, one file each in a ZIP of CSV.

Amounts are written with all their decimals, as numbers with a format. Texts are written as texts:
what a spreadsheet would take for a formula is none.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from prepaid_pipeline.csv_safety import harmless
from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.content.figures import complete
from prepaid_pipeline.revenue.report.page import build, currency_tables, month_tables
from prepaid_pipeline.revenue.report.page.blocks import Column, Table, Value, Word

# The earliest day that a ZIP can have: the same tables give the same bytes on any day.
_STAMP = (1980, 1, 1, 0, 0, 0)
_SHEET_NAME = 31
_CURRENCY = Column("currency")
_FIRST_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = 16, 9, 60


def as_xlsx(document: Mapping[str, Any], say: Language) -> bytes:
    """A workbook: a sheet of what it is, then one per table. The same document, the same bytes."""
    import xlsxwriter

    out = io.BytesIO()
    options = {
        "in_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with xlsxwriter.Workbook(out, options) as book:
        published = datetime.fromisoformat(document["published_at"]).replace(tzinfo=None)
        title = say("page.title", month=say.month(document["month"]))
        book.set_properties({"title": title, "created": published})
        book.set_size(2400, 1400)
        styles = _Styles(book)
        _cover(book, styles, document, say, title)
        for name, found in _by_name(document):
            _sheet(book, styles, _sheet_name(name, found, say), found, say)
    return out.getvalue()


def as_csv(document: Mapping[str, Any]) -> bytes:
    """A ZIP of CSV files (UTF-8, RFC 4180), named as the tables, headings as the JSON's keys."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, found in _by_name(document):
            entry = zipfile.ZipInfo(f"{name}.csv", _STAMP)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, _csv(found))
    return out.getvalue()


def _by_name(document: Mapping[str, Any]) -> Iterator[tuple[str, list[Table]]]:
    """All tables, those of one name and different currencies together."""
    courses = {series["currency"]: series for series in document.get("course") or ()}
    found: dict[str, list[Table]] = {}
    for figures in map(complete, document["currencies"]):
        made = currency_tables.of_currency(figures, courses.get(figures["currency"]))
        for name, table in made.items():
            found.setdefault(name, []).append(table)
    for name, table in month_tables.of_month(document).items():
        found.setdefault(name, []).append(table)
    yield from found.items()


def _columns(found: Sequence[Table]) -> tuple[Column, ...]:
    columns = found[0].columns
    return columns if found[0].currency is None else (_CURRENCY, *columns)


def _rows(found: Sequence[Table]) -> Iterator[tuple[Table, int, tuple[Value, ...]]]:
    for table in found:
        for place, row in enumerate(table.rows):
            yield table, place, row if table.currency is None else (table.currency, *row)


def _csv(found: Sequence[Table]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    columns = _columns(found)
    writer.writerow(column.name for column in columns)
    for _, _, row in _rows(found):
        writer.writerow(_plain(value, column) for value, column in zip(row, columns, strict=True))
    return out.getvalue()


def _plain(value: Value, column: Column) -> str:
    if value is None:
        return ""
    if isinstance(value, Word):
        return value.code
    return str(value) if column.is_number else harmless(str(value))


class _Styles:
    """The workbook's formats, each made once."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._made: dict[tuple[str, bool], Any] = {}
        self.title = book.add_format({"bold": True, "font_size": 16})
        self.head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        self.wrap = book.add_format({"text_wrap": True, "valign": "top"})

    def of(self, number_format: str, *, bold: bool) -> Any:
        key = (number_format, bold)
        if key not in self._made:
            self._made[key] = self._book.add_format(
                {"num_format": number_format, "bold": bold, "valign": "top"}
            )
        return self._made[key]


def _cover(
    book: Any, styles: _Styles, document: Mapping[str, Any], say: Language, title: str
) -> None:
    sheet = book.add_worksheet(say("sheet.cover")[:_SHEET_NAME])
    sheet.set_column(0, 0, 28)
    sheet.set_column(1, 1, 72)
    sheet.write_string(0, 0, title, styles.title)
    version = document["version"]
    lines = [
        (
            say("index.state"),
            say("page.closed", version=version) if version else say("page.preliminary"),
        ),
        (say("sheet.measured_on"), date.fromisoformat(document["measured_on"])),
        (say("column.cut_off"), date.fromisoformat(document["cut_off"])),
        (say("column.fingerprint"), document["fingerprint"] or ""),
        (say("column.note"), build.changed(document, say)),
        (say("column.why"), build.why(document, say)),
    ]
    for row, (label, value) in enumerate(lines, start=2):
        sheet.write_string(row, 0, label)
        if isinstance(value, date):
            sheet.write_datetime(row, 1, value, styles.of("yyyy-mm-dd", bold=False))
            continue
        sheet.write_string(row, 1, value, styles.wrap)


def _sheet(book: Any, styles: _Styles, name: str, found: Sequence[Table], say: Language) -> None:
    sheet = book.add_worksheet(name)
    columns = _columns(found)
    # The names of rows and the headings stay in sight.
    sheet.freeze_panes(1, 1 if found[0].currency is None else 2)
    widths = [_LEAST_WIDTH] * len(columns)
    for place, column in enumerate(columns):
        title = say(f"column.{column.name}")
        sheet.write_string(0, place, title, styles.head)
        widths[place] = max(_LEAST_WIDTH, min(len(title), _FIRST_WIDTH))
    row = 0
    for row, (table, at, values) in enumerate(_rows(found), start=1):
        bold = bool(table.role(at))
        for place, (value, column) in enumerate(zip(values, columns, strict=True)):
            # A balance has no sign.
            if bold and column.kind == "signed":
                column = replace(column, kind="money")
            length = _write(sheet, styles, row, place, value, column, say, bold=bold)
            widths[place] = max(widths[place], min(length + 1, _MOST_WIDTH))
    for place, width in enumerate(widths):
        sheet.set_column(place, place, width)
    sheet.autofilter(0, 0, max(row, 1), len(columns) - 1)


def _write(
    sheet: Any,
    styles: _Styles,
    row: int,
    place: int,
    value: Value,
    column: Column,
    say: Language,
    *,
    bold: bool,
) -> int:
    """Write a cell as what it is; how wide it is, in characters."""
    if value is None:
        return 0
    if isinstance(value, Word):
        text = value.text(say)
        sheet.write_string(row, place, text, styles.of("@", bold=bold))
        return len(text)
    if column.kind in ("day", "month"):
        text = str(value)
        day = date.fromisoformat(text if column.kind == "day" else f"{text}-01")
        shown = "yyyy-mm-dd" if column.kind == "day" else "yyyy-mm"
        sheet.write_datetime(row, place, day, styles.of(shown, bold=bold))
        return len("yyyy-mm-dd")
    if not column.is_number:
        sheet.write_string(row, place, str(value), styles.of("@", bold=bold))
        return len(str(value))
    number = Decimal(value)
    sheet.write_number(row, place, number, styles.of(_number_format(number, column), bold=bold))
    return len(f"{number:,f}")


def _number_format(number: Decimal, column: Column) -> str:
    decimals = max(0, -int(number.as_tuple().exponent))
    match column.kind:
        case "count":
            return "#,##0"
        case "rate" | "share":
            return "0.0%"
        case "hours":
            return "#,##0.0"
    fraction = "." + "0" * decimals if decimals else ""
    shown = f"#,##0{fraction}"
    return f"+{shown};-{shown};{shown}" if column.kind == "signed" else shown


def _sheet_name(name: str, found: Iterable[Table], say: Language) -> str:
    """The table's title as a sheet can have it: 31 characters, none of ``[]:*?/\\``."""
    table = next(iter(found))
    title = say(f"sheet.{name}") if say.knows(f"sheet.{name}") else table.title(say)
    return re.sub(r"[\[\]:*?/\\]", " ", title)[:_SHEET_NAME].strip("' ")
