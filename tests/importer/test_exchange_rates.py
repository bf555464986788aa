"""exchange_rates.csv: what is taken, what is refused and why, and how corrections are noted."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.importer.reports import FileReport
from tests.importer.folders import AS_OF, rows, write

D = date
HEADER = "month,currency,rate\n"
RATES = "SELECT month, currency, reporting_currency, rate FROM revenue.exchange_rates ORDER BY 1, 2"
AUDIT = (
    "SELECT event, detail, actor, as_of FROM prepaid.audit_log WHERE entity = 'exchange_rate'"
    " ORDER BY audit_id"
)


def take(engine: Engine, folder: Path, text: str, into: str | None = "USD") -> FileReport:
    (report,) = import_directory(
        engine,
        write(folder, {"exchange_rates": text}),
        as_of=AS_OF,
        grace_days=7,
        reporting_currency=into,
    )
    return report


def test_rates_of_the_reporting_currency_and_of_others(engine: Engine, folder: Path) -> None:
    text = (
        "month,currency,rate,reporting_currency\n2026-09,EUR,1.0823,\n2026-09,JPY,0.0067,USD\n"
        "2026-10,USD,0.92,EUR\n"
    )
    report = take(engine, folder, text)
    assert (report.status, report.added, report.changed) == ("imported", 3, 0)
    assert [(m, c, r, str(rate)) for m, c, r, rate in rows(engine, RATES)] == [
        (D(2026, 9, 1), "EUR", "USD", "1.0823"),
        (D(2026, 9, 1), "JPY", "USD", "0.0067"),
        (D(2026, 10, 1), "USD", "EUR", "0.92"),
    ]
    assert take(engine, folder, text).status == "unchanged"


def test_a_correction_is_in_the_audit_log(engine: Engine, folder: Path) -> None:
    take(engine, folder, HEADER + "2026-09,EUR,1.0823\n")
    report = take(engine, folder, HEADER + "2026-09,EUR,1.0832\n2026-10,EUR,1.09\n")
    assert (report.added, report.changed) == (1, 1)
    assert rows(engine, AUDIT) == [
        (event, detail, "import", AS_OF)
        for event, detail in (
            (
                "exchange_rate_added",
                "currency: EUR, month: 2026-09-01, rate: 1.0823, reporting_currency: USD",
            ),
            (
                "exchange_rate_added",
                "currency: EUR, month: 2026-10-01, rate: 1.09, reporting_currency: USD",
            ),
            (
                "exchange_rate_changed",
                "month 2026-09-01, currency EUR, reporting_currency USD; rate: 1.0823 -> 1.0832",
            ),
        )
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-13,EUR,1.08", "month: found '2026-13', expected a month such as 2026-01"),
        ("2026-09-30,EUR,1.08", "month: found '2026-09-30', expected a month such as 2026-01"),
        (
            "2026-09,EUR,0",
            "rate: found '0', expected a rate above 0 with a decimal point such as 1.0823",
        ),
        (
            '2026-09,EUR,"1,08"',
            "rate: found '1,08', expected a rate above 0 with a decimal point such as 1.0823",
        ),
        (
            "2026-09,EUR,NaN",
            "rate: found 'NaN', expected a rate above 0 with a decimal point such as 1.0823",
        ),
        ("2026-09,EUR,", "rate: found nothing, expected a value"),
        (
            "2026-09,XXX,1.08",
            "currency: found 'XXX', expected an ISO 4217 currency code such as USD",
        ),
        (
            "2026-09,USD,1.08",
            "currency: found 'USD', expected another currency than the reporting currency",
        ),
        (
            "2026-08,EUR,1.07",
            "month: found '2026-08', expected each month of two currencies once;"
            " line 2 has it already",
        ),
    ],
)
def test_bad_lines(engine: Engine, folder: Path, line: str, message: str) -> None:
    report = take(engine, folder, f"{HEADER}2026-08,EUR,1.05\n{line}\n")
    assert (report.status, report.errors) == ("refused", [f"exchange_rates.csv:3:{message}"])
    assert rows(engine, RATES) == []


def test_into_which_currency_must_be_known(engine: Engine, folder: Path) -> None:
    report = take(engine, folder, HEADER + "2026-09,EUR,1.0823\n", into=None)
    assert report.errors == [
        "exchange_rates.csv:2:reporting_currency: found nothing, expected a currency here, or"
        " PREPAID_REPORTING_CURRENCY set"
    ]
