"""Fault 10: hostile files are refused with one clear line, or taken as the text that they are."""

import csv
import html
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.billing.providers.loading import import_payments
from prepaid_pipeline.importer.csv_records import MAX_LINE
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from tests.faults.recorder import Recorder
from tests.importer.folders import AS_OF, BASE, dump, rows, take
from tests.operations.service.conftest import Command, prepaid
from tests.revenue.documents import full
from tests.world import context

__all__ = ["prepaid"]

pytestmark = pytest.mark.fault

GIGABYTE = 10**9
# More than a reader of lines needs, far less than the line.
MOST_MEGABYTES = 24
CUSTOMERS = "customer_ref,name,email,country,currency,tax_exempt\n"
FORMULAS = (
    "=cmd|' /C calc'!A0",
    "=1+1",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    '=HYPERLINK("http://example.com","x")',
    "\uff1dcmd|x",
)

_IMPORT = """
import resource, sys
from datetime import date
from pathlib import Path
from sqlalchemy import make_url
from prepaid_pipeline.billing.providers.loading import import_payments
from prepaid_pipeline.database import connections
from prepaid_pipeline.importer.loading import import_directory
engine = connections.engine_for(make_url(sys.argv[1]))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def take(folder):
    (report, *_) = import_directory(engine, Path(folder), as_of=date(2026, 11, 1), grace_days=7)
    return report
assert take(sys.argv[2]).status == "unchanged"
before = peak()
for folder in sys.argv[3:]:
    report = take(folder)
    print(report.status, *report.errors, sep="\\t")
    paid = import_payments(engine, Path(folder) / "customers.csv", file_format="stripe")
    assert paid.status == "refused" and len(paid.errors) == 1, paid
print(peak() - before)
"""


def long_line(folder: Path, begin: bytes) -> str:
    """A file with a line of 1 GB, of which the disk holds what anybody should ever read."""
    folder.mkdir()
    with (folder / "customers.csv").open("wb") as file:
        file.write(begin + b"x" * (4 * MAX_LINE))
        file.truncate(GIGABYTE)
    return str(folder)


@pytest.fixture
def base(engine: Engine, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    take(engine, folder, {"customers": BASE["customers"]})
    return folder


def test_a_line_of_a_gigabyte_is_refused_in_flat_memory(
    engine: Engine, base: Path, tmp_path: Path, record: Recorder
) -> None:
    header = CUSTOMERS.encode()
    folders = [
        long_line(tmp_path / "first", b""),
        long_line(tmp_path / "second", header + b"C-9,"),
        long_line(tmp_path / "quoted", header + b'C-9,"'),
    ]
    # A field without end in lines of ordinary length.
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "customers.csv").write_bytes(header + b'C-9,"' + b"xx\n" * 10**6)
    # A gigabyte of nothing.
    (tmp_path / "nothing").mkdir()
    with (tmp_path / "nothing" / "customers.csv").open("wb") as file:
        file.truncate(GIGABYTE)
    folders += [str(tmp_path / "lines"), str(tmp_path / "nothing")]
    before = dump(engine)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, url, str(base), *folders],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *reports, megabytes = done.stdout.splitlines()
    too_long = "found a line longer than 1,048,576 bytes, expected a CSV file with one record per"
    expected = [
        f"customers.csv:1:-: {too_long}",
        f"customers.csv:2:-: {too_long}",
        f"customers.csv:2:-: {too_long}",
        "customers.csv:2:-: found broken CSV (field larger than field limit (131072)), expected a",
        f"customers.csv:1:-: {too_long}",
    ]
    wrong = [
        report
        for report, said in zip(reports, expected, strict=True)
        if not report.startswith(f"refused\t{said}") or report.count("\t") != 1
    ]
    violations = len(wrong) + (int(megabytes) > MOST_MEGABYTES) + (dump(engine) != before)
    what = f"import of lines of 1 GB: refused, {megabytes} MB more memory at the peak"
    record(fault=10, what=what, points=2 * len(folders), violations=violations)
    assert wrong == []
    assert int(megabytes) <= MOST_MEGABYTES
    assert dump(engine) == before


WIDE = ",".join(f"column_{n}" for n in range(10_000))
BROKEN = {
    "a NUL byte": ("C-9,Nul\0Bakery,,US,USD,false\n", "2:name: found a NUL byte (byte "),
    "10,000 columns in the header": (None, "1:column_0: found an unknown column 'column_0'"),
    "10,000 fields": (f"{WIDE}\n", "2:tax_exempt: found 10000 fields, expected 6"),
    "an override to right-to-left": (
        "C-9,\u202eyrekaB,,US,USD,false\n",
        "2:name: found '\\u202eyrekaB', expected text without U+202E, which reverses",
    ),
    "an isolate": (
        "C-9,A\u2067B,,US,USD,false\n",
        "2:name: found 'A\\u2067B', expected text without U+2067",
    ),
    "half a character": (b"C-9,Caf\xc3,,US,USD,false\n", "2:name: found the byte 0xC3 (byte "),
}


@pytest.mark.smoke
def test_broken_bytes_and_ten_thousand_columns(
    engine: Engine, base: Path, record: Recorder
) -> None:
    before = dump(engine)
    wrong: list[str] = []
    good = "C-8,Good Bakery,,US,USD,false\n"
    for name, (line, said) in BROKEN.items():
        if line is None:
            content = f"{WIDE}\n{good}".encode()
        else:
            content = CUSTOMERS.encode()
            content += line.encode() if isinstance(line, str) else line
            content += good.encode()
        report = take(engine, base, {"customers": content})["customers"]
        told = report.errors
        if len(told) != 1 or not told[0].startswith(f"customers.csv:{said}") or len(told[0]) > 500:
            wrong.append(f"{name}: {told}")
        if dump(engine) != before:
            wrong.append(f"{name}: something was taken")
    payments = base / "payments.csv"
    payments.write_bytes(b"id,Created (UTC)," + WIDE.encode() + b"\n" + b"\0" * 100)
    if import_payments(engine, payments, file_format="stripe").status != "refused":
        wrong.append("payments")
    what = "import of NUL bytes, half characters, 10,000 columns, text that turns around"
    record(fault=10, what=what, points=len(BROKEN) + 1, violations=len(wrong))
    assert wrong == []


def test_formulas_and_right_to_left_names_stay_the_text_they_are(
    engine: Engine, tmp_path: Path, prepaid: Command, record: Recorder
) -> None:
    right_to_left = ("\u200f\u05de\u05d0\u05e4\u05d9\u05d9\u05d4", "\u0645\u062e\u0628\u0632\u061c")
    names = (*FORMULAS, *right_to_left)
    out = io.StringIO()
    customers, subscriptions = csv.writer(out), io.StringIO()
    customers.writerow(CUSTOMERS.strip().split(","))
    orders = csv.writer(subscriptions)
    orders.writerow(
        (
            "subscription_ref",
            "customer_ref",
            "plan_code",
            "started_on",
            "auto_renew",
            "price",
            "addons",
        )
    )
    for number, name in enumerate(names):
        reference = f"{name} {number}"
        customers.writerow((reference, name, "a@example.com", "US", "USD", "false"))
        orders.writerow((f"S-{number}", reference, "basic", "2026-11-02", "true", "", ""))
    files = {
        "customers": out.getvalue(),
        "plans": BASE["plans"],
        "tax_rates": BASE["tax_rates"],
        "subscriptions": subscriptions.getvalue(),
    }
    reports = take(engine, tmp_path / "in", files)
    assert {report.status for report in reports.values()} == {"imported"}
    stored = {name for (name,) in rows(engine, "SELECT name FROM prepaid.customers")}
    assert prepaid("drain", "--as-of", "2026-11-02")[0] == 0
    code, output, _ = prepaid("invoices", "list", "--status", "all", "--csv")
    assert code == 0
    cells = [cell for row in csv.reader(io.StringIO(output)) for cell in row]
    running = [cell for cell in cells if cell[:1] and cell[0] in "=+-@\t\r\uff1d"]
    kept = [f"{name} {number}" for number, name in enumerate(names)]
    missing = [ref for ref in kept if ref not in cells and f"'{ref}" not in cells]
    violations = len(running) + len(missing) + (stored != set(names))
    what = "formulas and right-to-left marks in names, from import to the exported CSV"
    record(fault=10, what=what, points=len(names), violations=violations)
    assert running == []
    assert missing == []
    assert stored == set(names)
    found = invariants.run(engine, context(AS_OF))
    assert [finding for finding in found if finding.findings] == []


@pytest.mark.smoke
def test_formulas_do_not_run_in_the_reports_spreadsheets(record: Recorder) -> None:
    """The workbook and the CSV files of a month whose plans are called so."""
    report = full()
    plans = report["currencies"][0]["plans"]
    running: list[str] = []
    for name in FORMULAS:
        plans[0]["name"] = name
        made = Rendering(report, catalogue.of("en_GB", Path("/nowhere")))
        book = zipfile.ZipFile(io.BytesIO(made.as_("xlsx")))
        sheets = [book.read(part) for part in book.namelist() if "worksheets/" in part]
        if any(b"<f>" in sheet or b"<f " in sheet for sheet in sheets):
            running.append(f"{name} is a formula in the workbook")
        shared = html.unescape(book.read("xl/sharedStrings.xml").decode())
        if name not in shared:
            running.append(f"{name} is missing in the workbook")
        files = zipfile.ZipFile(io.BytesIO(made.as_("csv")))
        for part in files.namelist():
            for row in csv.reader(io.StringIO(files.read(part).decode())):
                running += [cell for cell in row if cell == name]
    what = "formulas in names of plans, in the report's XLSX and CSV"
    record(fault=10, what=what, points=2 * len(FORMULAS), violations=len(running))
    assert running == []
