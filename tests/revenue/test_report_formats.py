"""The same report on paper, for spreadsheets and for programs."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pypdf
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from sqlalchemy import Engine

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.content.document import SCHEMA
from prepaid_pipeline.revenue.report.content.schema import SCHEMA_FILE, schema
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from tests.revenue.documents import full
from tests.revenue.history import Term, insert
from tests.revenue.pages import write

D = date
# Spreadsheets have no time zones.
CREATED = datetime(2026, 11, 20, 14, 2, 11, tzinfo=UTC).replace(tzinfo=None)
OCTOBER = datetime(2025, 10, 1, tzinfo=UTC).replace(tzinfo=None)


def made(kind: str, document: dict[str, Any] | None = None, locale: str = "en_GB") -> bytes:
    return Rendering(document or full(), catalogue.of(locale, Path("/nowhere"))).as_(kind)


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(schema())
    return found


def strict(part: Any) -> Any:
    """The schema, but nothing may be there that it does not name."""
    if isinstance(part, list):
        return [strict(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    inner = {key: strict(value) for key, value in part.items()}
    return {**inner, "additionalProperties": False} if "properties" in part else inner


def complaints(document: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(strict(described()), format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_the_schema_is_one_and_says_its_number() -> None:
    Draft202012Validator.check_schema(described())
    assert described()["properties"]["schema"]["const"] == SCHEMA
    assert f"{SCHEMA.replace('/', '-')}.schema.json" == SCHEMA_FILE


def test_json_is_what_the_schema_says(engine: Engine, tmp_path: Path) -> None:
    """A report by hand with everything in it, and real ones: of nothing, and of a version 2."""
    assert complaints(json.loads(made("json"))) == []
    write(engine, tmp_path, D(2026, 3, 20))
    empty = json.loads((tmp_path / "2026-03" / "report.json").read_text())
    insert(
        engine,
        [Term(D(2026, 3, 5), "1.5", 7), Term(D(2026, 3, 1), "9", customer=2, currency="JPY")],
    )
    write(engine, tmp_path, D(2026, 4, 8))
    insert(engine, [Term(D(2026, 2, 5), "8.00", customer=3), Term(D(2026, 3, 30), customer=4)])
    write(engine, tmp_path, D(2026, 5, 8))
    found = [json.loads((tmp_path / "2026-03" / f"report-v{n}.json").read_text()) for n in (1, 2)]
    assert [complaints(document) for document in (empty, *found)] == [[], [], []]
    assert found[1]["changes"]["causes"][0]["times"] == 2
    assert (tmp_path / SCHEMA_FILE).read_bytes() == schema()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": "final"}, "$.status"),
        ({"fingerprint": "3f9"}, "$.fingerprint"),
        ({"month": "2026-13"}, "$.month"),
        ({"cut_off": "20 November"}, "$.cut_off"),
        ({"extra": 1}, "$: Additional"),
        ({"currencies": [{"mrr": 1.5}]}, "$.currencies[0].mrr"),
    ],
)
def test_the_schema_refuses(change: dict[str, Any], complaint: str) -> None:
    found = complaints({**json.loads(made("json")), **change})
    assert any(said.startswith(complaint) for said in found), found


def test_amounts_in_json_are_texts() -> None:
    assert not re.search(r'": -?\d+\.\d', made("json").decode()), "an amount became a float"


def test_pdf_says_the_same_and_can_be_read_aloud() -> None:
    reader = pypdf.PdfReader(io.BytesIO(made("pdf")))
    text = re.sub(r"\s+", " ", " ".join(page.extract_text() for page in reader.pages))
    for wanted in (
        "October 2026",
        "Closed · version 2",
        "34 new plans and 212 renewals began.",
        "11,902.00",
        "Fibre 1,000 yearly",
        "Opening balance",
        "24,247.56",
        "Payment verification",
        "Customers can be reached by email",
        "3 terms imported on 20 November 2026",
        "What the figures mean",
        "3f9a0c5d71be42e8a6d1c0b98f7e65d4c3b2a1908f7e6d5c4b3a29180f7e6d5c",
    ):
        assert wanted in text, wanted
    root = reader.trailer["/Root"]
    assert root["/Lang"] == "en-GB"
    assert root["/MarkInfo"]["/Marked"]
    assert b"<pdfuaid:part>1</pdfuaid:part>" in root["/Metadata"].get_data()
    assert reader.metadata is not None
    assert reader.metadata.title == "October 2026: monthly revenue report"
    read_aloud = list(alternatives(root["/StructTreeRoot"]))
    assert len(read_aloud) == 7
    assert read_aloud[0].startswith("From 11,165.07 to 11,470.48 EUR: New +684.04, ")


def alternatives(element: Any) -> Iterator[str]:
    """The text alternatives in the order of reading."""
    element = element.get_object()
    if isinstance(element, list):
        for inner in element:
            yield from alternatives(inner)
    elif isinstance(element, dict):
        if "/Alt" in element:
            yield str(element["/Alt"])
        if "/K" in element:
            yield from alternatives(element["/K"])


def test_pdf_has_its_fonts_in_it() -> None:
    reader = pypdf.PdfReader(io.BytesIO(made("pdf")))
    fonts = {}
    for page in reader.pages:
        for font in (f.get_object() for f in page["/Resources"]["/Font"].values()):
            below = font["/DescendantFonts"][0].get_object()
            fonts[font["/BaseFont"]] = below["/FontDescriptor"].get_object()
    assert len(fonts) == 2, "regular and bold"
    assert all("LibertinusSerif" in name for name in fonts)
    assert all(font.keys() & {"/FontFile2", "/FontFile3"} for font in fonts.values())


def test_the_same_document_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on another day and elsewhere: what is in a PDF or XLSX by the clock is the report's."""
    before = {kind: made(kind) for kind in ("html", "pdf", "xlsx", "csv", "json")}
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert {kind: made(kind) for kind in before} == before
    properties = openpyxl.load_workbook(io.BytesIO(before["xlsx"])).properties
    assert properties.created == CREATED


def test_xlsx_has_a_sheet_per_table_and_real_numbers() -> None:
    book = openpyxl.load_workbook(io.BytesIO(made("xlsx")))
    assert book.sheetnames[:4] == ["Report", "MRR movements", "Thirteen months", "MRR by plan"]
    assert len(book.sheetnames) == 23
    bridge = book["MRR movements"]
    rows = [[cell.value for cell in row] for row in bridge.iter_rows()]
    assert rows[0] == ["Currency", "Movement", "Customers", "Amount"]
    assert rows[1] == ["USD", "Start", 276, 11589]
    assert rows[6] == ["USD", "Churn", 15, -615]
    assert rows[7:9] == [["USD", "End", 283, 11902], ["JPY", "Start", 24, 72800]]
    assert bridge.freeze_panes == "C2"
    formats = {cell.value: cell.number_format for cell in bridge["D"]}
    assert formats[11589] == "#,##0.00"
    assert formats[702.5] == "+#,##0.00;-#,##0.00;#,##0.00"
    assert formats[72800] == "#,##0"
    months = book["Thirteen months"]
    assert (months["B2"].value, months["B2"].number_format) == (OCTOBER, "yyyy-mm")
    plans = book["MRR by plan"]
    assert (plans["D2"].value, plans["D2"].number_format) == (0.6318, "0.0%")
    assert plans["B5"].font.bold


def test_amounts_keep_all_their_digits() -> None:
    document = full()
    document["currencies"][0]["movements"][0]["amount"] = "1234567890123.45"
    archive = zipfile.ZipFile(io.BytesIO(made("xlsx", document)))
    assert b"<v>1234567890123.45</v>" in archive.read("xl/worksheets/sheet2.xml")


DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x")', "http://x.example"]


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_name_never_becomes_a_formula(name: str) -> None:
    document = full()
    document["currencies"][0]["plans"][0]["name"] = name
    cell = openpyxl.load_workbook(io.BytesIO(made("xlsx", document)))["MRR by plan"]["B2"]
    assert (cell.value, cell.data_type, cell.hyperlink) == (name, "s", None)
    archive = zipfile.ZipFile(io.BytesIO(made("csv", document)))
    first = next(iter(csv.DictReader(io.StringIO(archive.read("plans.csv").decode()))))
    assert first["plan"] == (name if name.startswith("http") else f"'{name}")


def test_csv_is_a_file_per_table_for_programs() -> None:
    archive = zipfile.ZipFile(io.BytesIO(made("csv", locale="de_DE")))
    tables = {
        name: list(csv.DictReader(io.StringIO(archive.read(name).decode())))
        for name in archive.namelist()
    }
    assert len(tables) == 22
    # Names and numbers are the data's, whatever the language of the report.
    assert tables["bridge.csv"][5] == {
        "currency": "USD",
        "movement": "churn",
        "customers": "15",
        "amount": "-615.00",
    }
    assert [row["country"] for row in tables["countries.csv"]] == ["US", "CA", "all_countries"]
    assert len(tables["cohorts.csv"]) == 22
    moved = sum(Decimal(row["amount"]) for row in tables["bridge.csv"][1:6])
    assert Decimal("11589.00") + moved == Decimal(tables["bridge.csv"][6]["amount"])


@pytest.mark.parametrize("locale", ["de_DE", "en_US"])
def test_every_format_in_other_languages(locale: str) -> None:
    assert all(made(kind, locale=locale) for kind in ("html", "pdf", "xlsx", "csv", "json"))
