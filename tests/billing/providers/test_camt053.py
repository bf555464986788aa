"""camt.053 statements: what each entry becomes."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from tests.billing.providers.deliveries import FILES, landed, take, write
from tests.billing.providers.statements import entry, statement


def test_a_statement_of_version_02(engine: Engine) -> None:
    report = take(engine, FILES / "statement_02.xml", timezone=ZoneInfo("Europe/Berlin"))
    assert (report.errors, report.format, report.status) == ([], "camt053", "imported")
    assert (report.rows, report.landed) == (6, 5)
    assert report.skipped == {"debit": 1, "returned payment of ours": 1}
    columns = "provider_ref, status, amount, currency, invoice_number, occurred_at::date"
    assert landed(engine, columns) == [
        ("2026110200001", "Success", "107.25", "EUR", "INV-2026-000001", "2026-11-01"),
        ("2026110200002", "Pending", "50.00", "EUR", "INV-2026-000002", "2026-11-03"),
        ("2026110200003/1", "Success", "20.00", "EUR", "INV-2026-000003", "2026-11-01"),
        ("2026110200003/2", "Success", "40.00", "EUR", "INV-2026-000004", "2026-11-01"),
        # With the bank's fee; it belongs to the payment of that invoice.
        ("2026110200003/1", "Chargeback", "23.50", "EUR", "INV-2026-000003", "2026-11-02"),
    ]
    # Midnight in Berlin.
    assert {row[0][10:] for row in landed(engine, "occurred_at")} == {" 23:00:00+00:00"}
    assert {row[0] for row in landed(engine, "provider")} == {"DE02120300000000202051"}
    again = take(engine, FILES / "statement_02.xml", timezone=ZoneInfo("Europe/Berlin"))
    assert (again.status, again.landed, again.known) == ("unchanged", 0, 5)


def test_a_statement_of_version_08(engine: Engine) -> None:
    report = take(engine, FILES / "statement_08.xml")
    assert (report.errors, report.rows, report.landed) == ([], 8, 8)
    assert report.skipped == {"information": 1}
    assert report.unknown == {"FUTR": 1}
    found = landed(engine, "provider, provider_ref, status, amount, invoice_number")
    assert found[:6] == [
        ("0012345678", "TRN-1", "Success", "107.25", "INV-2026-000011"),
        ("0012345678", "TX-2", "Success", "35.00", "INV-2026-000012"),
        ("0012345678", "TX-3", "Chargeback", "5.00", "INV-2026-000013"),
        # Its payments are in another currency: which invoices it pays is not known.
        ("0012345678", "BATCH-4", "Success", "40.00", None),
        ("0012345678", "TRN-5", "FUTR", "9.00", None),
        ("0012345678", "TRN-6", "Refunded", "12.00", "CN-2026-000001"),
    ]
    assert landed(engine, "occurred_at")[0] == ("2026-11-04 04:30:00+00:00",)
    # Two payments without a reference that are the same in all: counted.
    (first, second) = found[6:]
    assert first[0] == second[0] == "JP00"
    assert first[1].startswith("fp-")
    assert (first[1][:-2], first[1][-2:], second[1][-2:]) == (second[1][:-2], "-1", "-2")
    assert take(engine, FILES / "statement_08.xml").landed == 0


def test_statements_that_overlap_deliver_an_entry_once(engine: Engine, tmp_path: Path) -> None:
    monday, tuesday = entry("R1"), entry("R2", day="2026-11-04")
    take(engine, write(tmp_path, "monday.xml", statement(monday)))
    report = take(engine, write(tmp_path, "week.xml", statement(monday, tuesday)))
    assert (report.landed, report.known) == (1, 1)
    assert [ref for ref, _, _ in landed(engine)] == ["R1", "R2"]


def test_pending_then_booked_is_one_payment(engine: Engine, tmp_path: Path) -> None:
    take(engine, write(tmp_path, "a.xml", statement(entry(status="PDNG"))))
    take(engine, write(tmp_path, "b.xml", statement(entry(day="2026-11-04"))))
    assert landed(engine) == [("R1", "Pending", "10.00"), ("R1", "Success", "10.00")]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("<RvslInd>true</RvslInd>", "INV-2026-000001"),
        ("<RvslInd>1</RvslInd>", "inv-2026-0000 01"),
        (
            "<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>IDDT</Cd><SubFmlyCd>UPDD</SubFmlyCd></Fmly></Domn>"
            "</BkTxCd>",
            "INV-2026-000001",
        ),
    ],
)
def test_a_return_belongs_to_the_payment_of_its_invoice(
    engine: Engine, tmp_path: Path, more: str, text: str
) -> None:
    take(engine, write(tmp_path, "a.xml", statement(entry(text="INV-2026-000001"))))
    back = statement(entry("R9", direction="DBIT", day="2026-11-20", text=text, more=more))
    assert take(engine, write(tmp_path, "b.xml", back)).landed == 1
    assert landed(engine)[1] == ("R1", "Chargeback", "10.00")
    # Delivered again, and in another statement: known.
    assert take(engine, write(tmp_path, "c.xml", back)).landed == 0


def test_a_return_names_the_payment_itself(engine: Engine, tmp_path: Path) -> None:
    take(engine, write(tmp_path, "a.xml", statement(entry("R1"), entry("R2"))))
    back = entry("R9", direction="DBIT", more="<RvslInd>true</RvslInd>").replace(
        "<TxDtls>", "<TxDtls><Refs><EndToEndId>R2</EndToEndId></Refs>"
    )
    take(engine, write(tmp_path, "b.xml", statement(back)))
    assert landed(engine)[2] == ("R2", "Chargeback", "10.00")


def test_a_return_of_nothing_known_keeps_its_own_reference(engine: Engine, tmp_path: Path) -> None:
    text = "INV-2026-000001"
    paid_twice = [entry("R1", text=text), entry("R2", text=text)]
    back = entry("R9", direction="DBIT", text=text, more="<RvslInd>true</RvslInd>")
    take(engine, write(tmp_path, "a.xml", statement(*paid_twice, back)))
    assert landed(engine)[2] == ("R9", "Chargeback", "10.00")
    # What landed first stays, even if the payment is known by now.
    take(engine, write(tmp_path, "b.xml", statement(back, account="DE03")))
    take(engine, write(tmp_path, "c.xml", statement(entry("R8", text=text), account="DE03")))
    assert take(engine, write(tmp_path, "b.xml", statement(back, account="DE03"))).landed == 0


def test_a_return_that_landed_stays_with_its_payment(engine: Engine, tmp_path: Path) -> None:
    text = "INV-2026-000001"
    back = entry("R9", direction="DBIT", text=text, more="<RvslInd>true</RvslInd>")
    take(engine, write(tmp_path, "a.xml", statement(entry("R1", text=text), back)))
    take(engine, write(tmp_path, "b.xml", statement(entry("R2", text=text))))
    assert take(engine, tmp_path / "a.xml").landed == 0


def test_references_of_a_batch(engine: Engine, tmp_path: Path) -> None:
    detail = '<TxDtls><Refs><AcctSvcrRef>{}</AcctSvcrRef></Refs><Amt Ccy="EUR">5.00</Amt></TxDtls>'
    own = (
        entry("B1")
        .replace("<TxDtls>", detail.format("P1") + "<TxDtls>")
        .replace(
            "<TxDtls><RmtInf>",
            '<TxDtls><Refs><AcctSvcrRef>P2</AcctSvcrRef></Refs><Amt Ccy="EUR">5.00</Amt><RmtInf>',
        )
    )
    shared = own.replace("P1", "P2").replace(">B1<", ">B2<")
    take(engine, write(tmp_path, "a.xml", statement(own, shared)))
    assert [ref for ref, _, _ in landed(engine)] == ["P1", "P2", "B2/1", "B2/2"]


def test_two_currencies_in_one_file(engine: Engine, tmp_path: Path) -> None:
    file = statement(entry("R1"), entry("R2", amount="1.500", currency="KWD"))
    take(engine, write(tmp_path, "a.xml", file))
    assert landed(engine, "amount, currency") == [("10.00", "EUR"), ("1.500", "KWD")]


def test_a_provider_of_ones_own(engine: Engine, tmp_path: Path) -> None:
    file = statement(entry()).replace("<IBAN>DE02</IBAN>", "")
    report = take(engine, write(tmp_path, "a.xml", file))
    assert report.errors == [
        "a.xml:3:Ntry[1]/Acct/Id: found nothing, expected the account's IBAN, or --provider NAME"
    ]
    take(engine, write(tmp_path, "a.xml", file), provider="house bank")
    assert landed(engine, "provider") == [("house bank",)]


@pytest.mark.parametrize("version", ["02", "03", "04", "05", "06", "07", "08", "10", "13"])
def test_every_version(engine: Engine, tmp_path: Path, version: str) -> None:
    namespace = f"urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}"
    assert (
        take(engine, write(tmp_path, "a.xml", statement(entry(), namespace=namespace))).landed == 1
    )
