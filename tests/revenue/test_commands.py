"""``prepaid backfill`` and ``prepaid report``."""

import json
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.definitions import build_defs
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.orchestration.revenue_jobs import FIGURES, range_tags, run_config
from prepaid_pipeline.settings.load import Settings
from tests.revenue.conftest import Run
from tests.revenue.history import Term, insert, rows

D = date


def test_backfill_is_one_recorded_run_and_prints_what_matters(
    prepaid: Run, engine: Engine, installation: Settings
) -> None:
    insert(engine, [Term(D(2026, 3, 5), "2000.00", 12, customer=n) for n in range(4)])
    page = installation.home / "reports" / "2026-04" / "report.html"
    code, out, err = prepaid("backfill", "2026-02", "2026-04", "--as-of", "2026-05-08")
    assert (code, err) == (0, "")
    assert out == (f"MRR of 2026-04: 666.67 USD over 4 active plans\nReport (version 1): {page}\n")
    assert prepaid("report", "2026-04") == (0, f"{page}\n", "")
    for kind, file in (("pdf", "report.pdf"), ("csv", "report.csv.zip"), ("xlsx", "report.xlsx")):
        path = page.with_name(file)
        assert prepaid("report", "2026-04", "--format", kind) == (0, f"{path}\n", "")
        assert path.is_file()
    page.with_name("report-v1.json").unlink()
    code, out, _ = prepaid("report", "2026-04", "--format", "json", "--version", "1")
    assert (code, json.loads(Path(out.strip()).read_text())["version"]) == (0, 1)
    code, _, err = prepaid("report", "2026-04", "--version", "2")
    assert (code, err) == (1, "prepaid: there is no version 2 of the report of 2026-04\n")
    assert rows(engine, "SELECT status, pipeline_name FROM dagster.runs") == [
        ("SUCCESS", "materialise_mrr")
    ]
    events = "SELECT count(*) FROM dagster.event_logs WHERE dagster_event_type = :type"
    assets = len(FIGURES) + 1
    assert rows(engine, events, type="ASSET_MATERIALIZATION") == [(3 * assets,)]


@pytest.mark.long
def test_again_for_a_program_and_with_a_check_that_fails(prepaid: Run, engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5), "2000.00", 12, customer=n) for n in range(4)])
    code, out, _ = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-05-08", "--json")
    told = json.loads(out)
    assert (told["month"], told["version"]) == ("2026-03", 1)
    assert told["currencies"][0]["mrr"] == "666.67"

    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION revenue.spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.mrr := NEW.mrr + 1; RETURN NEW; END';"
            " CREATE TRIGGER spoil BEFORE INSERT ON revenue.mrr_staging FOR EACH ROW"
            " EXECUTE FUNCTION revenue.spoil()"
        )
    code, out, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-05-08")
    assert (code, out) == (1, "")
    assert "mrr_is_the_terms_counted_one_by_one: mrr: " in err
    assert "fails for 1 row in 2026-03" in err
    assert "prepaid: nothing was published for 2026-03 to 2026-03." in err


@pytest.mark.long
def test_an_earlier_day_is_a_replay_and_must_be_asked_for(prepaid: Run, engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5), activated_on=D(2026, 4, 6))])
    code, out, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-04-08")
    assert (code, err) == (0, "")
    code, out, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-04-01")
    assert code == 0
    assert err.startswith("2026-03 keeps its figures as of 2026-04-08: those as of 2026-04-01")
    assert "MRR of 2026-03: 10.00 USD" in out
    code, out, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-04-01", "--replay")
    assert (code, err) == (0, "")
    assert rows(engine, "SELECT count(*) FROM revenue.mrr") == [(0,)]
    assert rows(engine, "SELECT max(version) FROM revenue.report_versions") == [(1,)]


@pytest.mark.long
def test_an_empty_month_says_so(prepaid: Run) -> None:
    code, out, _ = prepaid("backfill", "2026-03", "2026-03")
    assert code == 0
    assert "Nothing is active in 2026-03." in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("backfill", "2024-12", "2025-02"),
            "prepaid: 2024-12 is before the first month that can be reported,"
            " PREPAID_FIRST_MONTH=2025-01: set that to an earlier month\n",
        ),
        (
            ("backfill", "2026-03", "2026-02"),
            "prepaid: 2026-03 to 2026-02 is not a range: the first month is after the last one\n",
        ),
        (
            ("backfill", "2026-03", "2026-04", "--as-of", "2026-03-31"),
            "prepaid: 2026-04 has not begun on 2026-03-31: choose an earlier month or a later business"
            " date\n",
        ),
        (
            ("report", "2026-03"),
            "prepaid: there is no report for 2026-03: run 'prepaid backfill 2026-03 2026-03'\n",
        ),
    ],
)
def test_what_cannot_be_is_said(prepaid: Run, arguments: tuple[str, ...], said: str) -> None:
    assert prepaid(*arguments) == (1, "", said)


def test_a_month_is_written_in_four_and_two_digits(prepaid: Run) -> None:
    code, _, err = prepaid("backfill", "2026-3", "2026-04")
    assert code == 2
    assert "'2026-3' is not a month: expected YYYY-MM" in err


def test_a_month_that_has_not_begun(prepaid: Run) -> None:
    code, _, err = prepaid("backfill", "2199-01", "2199-01", "--as-of", "2199-01-05")
    assert code == 1
    assert "2199-01 has not begun: today is" in err


def test_a_report_store_that_cannot_be_used(prepaid: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREPAID_REPORTS", "s3://bucket/reports")
    code, _, err = prepaid("report", "2026-03")
    assert (code, err) == (
        1,
        "prepaid: PREPAID_REPORTS: writing to s3:// needs another package: pip install"
        " 'prepaid-pipeline[s3]'\n",
    )


def test_no_figures_as_of_a_day_that_has_not_come(
    prepaid: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the database has processed real days; before, the days are played."""
    monkeypatch.setattr(Settings, "today", lambda _: D(2026, 4, 3))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.installation SET first_real_day = '2026-04-01'")
    # Three days more, and March would be closed before its time.
    code, _, err = prepaid("backfill", "2026-03", "2026-03", "--as-of", "2026-04-08")
    assert (code, err) == (
        1,
        "prepaid: 2026-04-08 is after today, 2026-04-03: there are no figures as of a day that has"
        " not come\n",
    )
    job = build_defs().resolve_job_def("materialise_mrr")
    with pytest.raises(NotAllowed, match="2026-04-08 is after today"):
        job.execute_in_process(
            run_config=run_config(D(2026, 4, 8)), tags=range_tags(D(2026, 3, 1), D(2026, 3, 1))
        )
    assert rows(engine, "SELECT * FROM revenue.months") == []
    assert prepaid("backfill", "2026-03", "2026-03")[0] == 0
