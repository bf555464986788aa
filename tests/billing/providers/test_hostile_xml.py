"""Statements that are broken, or made to harm: refused with one clear line, and nothing lands."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, take, write
from tests.billing.providers.statements import entry, statement

GOOD = statement(entry(text="INV-2026-000001 für Müller"))
LAUGHS = (
    "<!DOCTYPE lolz [<!ENTITY l0 'lol'>"
    + "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
    + "]>"
)


def refused(engine: Engine, path: Path) -> str:
    report = take(engine, path)
    assert (report.status, report.landed) == ("refused", 0)
    assert landed(engine) == []
    (error,) = report.errors
    assert error.startswith(f"{path.name}:")
    return error


@pytest.mark.parametrize(
    "prolog",
    [
        LAUGHS,
        f"<!DOCTYPE a [<!ENTITY big '{'x' * 100_000}'>]>",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>",
        "<!DOCTYPE a [<!ENTITY % p SYSTEM 'http://127.0.0.1:9/x.dtd'> %p;]>",
        "<!DOCTYPE a SYSTEM 'file:///etc/hostname'>",
        "<!DOCTYPE Document>",
        "<!-- a comment --><!DOCTYPE Document>",
    ],
    ids=lambda prolog: prolog[:40],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_before_it_is_read(
    engine: Engine, tmp_path: Path, prolog: str, encoding: str
) -> None:
    file = statement(entry(text="&l9;&x;&big;"), prolog=prolog).replace("UTF-8", encoding)
    started = time.monotonic()
    error = refused(engine, write(tmp_path, "a.xml", file.encode(encoding)))
    assert time.monotonic() - started < 2
    assert error == (
        "a.xml:1:-: found a document type (DOCTYPE), expected a payment message, which has none"
    )


def test_an_entity_that_nobody_declared(engine: Engine, tmp_path: Path) -> None:
    many = [entry(f"R{n}") for n in range(1000)]
    file = statement(*many, entry(text="&secret;"), *many)
    error = refused(engine, write(tmp_path, "a.xml", file))
    assert "broken XML (Entity 'secret' not defined)" in error


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_and_encodings(engine: Engine, tmp_path: Path, mark: bytes) -> None:
    assert take(engine, write(tmp_path, "a.xml", mark + GOOD.encode())).landed == 1
    for encoding in ("utf-16", "iso-8859-1"):
        file = GOOD.replace("UTF-8", encoding).encode(encoding)
        assert take(engine, write(tmp_path, "b.xml", file)).known == 1


def test_another_encoding_than_declared(engine: Engine, tmp_path: Path) -> None:
    error = refused(engine, write(tmp_path, "a.xml", GOOD.encode("iso-8859-1")))
    assert error.startswith("a.xml:3:-: found broken XML (")
    error = refused(engine, write(tmp_path, "a.xml", GOOD.replace("UTF-8", "klingon")))
    assert "broken XML (Unsupported encoding: klingon" in error


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len((FILES / "statement_08.xml").read_bytes()) - 20))
def test_a_file_that_was_cut_short(
    module_engine: Engine, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.xml"
    path.write_bytes((FILES / "statement_08.xml").read_bytes()[:length])
    report = take(module_engine, path, provider="cut")
    assert (report.status, report.landed) == ("refused", 0)
    assert report.errors
    assert landed(module_engine, "provider_ref") == []


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("", "an empty file"),
        ("<html><body/></html>", "no statement (BkToCstmrStmt/Stmt)"),
        ("<a>" * 10_000, "broken XML"),
        (
            statement(entry(), namespace="urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"),
            "found a camt.054 message, expected a statement, camt.053",
        ),
        (
            statement(entry(), namespace="urn:iso:std:iso:20022:tech:xsd:camt.052.001.02"),
            "found a camt.052 message",
        ),
        (statement(entry(), namespace="urn:nobody"), "found the namespace 'urn:nobody'"),
        (statement(entry(), message="BkToCstmrAcctRpt"), "no statement (BkToCstmrStmt/Stmt)"),
        ("\x1f\x8b\x08", "UTF-8"),
        ("PK\x03\x04\x00", "a NUL byte"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_statement(engine: Engine, tmp_path: Path, file: str, expected: str) -> None:
    path = write(tmp_path, "a.xml", file.encode("latin-1") if file[:1] == "\x1f" else file)
    assert expected in refused(engine, path)


@pytest.mark.parametrize(
    ("bad", "where", "expected"),
    [
        (entry(amount="-10.00"), "Amt", "found '-10.00', expected a number of 0 or more"),
        (entry(amount="1e3"), "Amt", "found '1e3', expected a number"),
        (entry(amount="NaN"), "Amt", "found 'NaN', expected a number"),
        (entry(amount="10,00"), "Amt", "found '10,00', expected a number"),
        (entry(amount=""), "Amt", "found nothing, expected a number"),
        (entry(amount="9" * 4000), "Amt", "expected a number"),
        (entry(currency=""), "Amt/@Ccy", "found nothing, expected a currency"),
        (entry(direction="BOTH"), "CdtDbtInd", "found 'BOTH', expected CRDT or DBIT"),
        (entry(status=""), "Sts", "found nothing, expected a status such as BOOK"),
        (entry(day="2026-02-30"), "BookgDt/Dt", "found '2026-02-30', expected a date"),
        (
            entry().replace("<BookgDt><Dt>2026-11-03</Dt></BookgDt>", ""),
            "BookgDt",
            "found nothing, expected a booking date or a value date",
        ),
        (
            entry().replace("<Dt>2026-11-03</Dt>", "<DtTm>soon</DtTm>"),
            "BookgDt/DtTm",
            "found 'soon', expected a date and time",
        ),
        (entry("R" * 300), "AcctSvcrRef", "found 300 characters, expected at most 200"),
        (
            entry().replace("<TxDtls>", '<TxDtls><Amt Ccy="EUR">x</Amt>'),
            "NtryDtls/TxDtls/Amt",
            "found 'x', expected a number",
        ),
    ],
    ids=lambda value: value[-20:],
)
def test_an_entry_that_cannot_be_read_refuses_the_file(
    engine: Engine, tmp_path: Path, bad: str, where: str, expected: str
) -> None:
    error = refused(engine, write(tmp_path, "a.xml", statement(entry("R0"), bad)))
    assert error.startswith(f"a.xml:4:Ntry[2]/{where}: found ")
    assert expected in error


def test_memory_holds_one_entry(tmp_path: Path) -> None:
    """20,000 entries are 5 MB; as a tree they would take 50 MiB."""
    program = [
        sys.executable,
        "-m",
        "tests.billing.providers.read_statement",
        tmp_path / "big.xml",
        "20000",
    ]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 5
