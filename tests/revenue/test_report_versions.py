"""Versions: preliminary until closed, frozen from then on, later truth is a new one with a note."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.revenue.report.content.document import document
from prepaid_pipeline.revenue.report.content.versions import Version
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from prepaid_pipeline.storage import ENDINGS
from tests.revenue.history import RUN, Term, insert, publish, rows
from tests.revenue.test_reversals import BACK, PAID, invoice, land, record

D = date
MARCH, GRACE = D(2026, 3, 1), 7
BEFORE_CLOSE, CLOSED, LATER = D(2026, 4, 7), D(2026, 4, 8), D(2026, 5, 20)


def report(engine: Engine, as_of: date, month: date = MARCH) -> list[date]:
    publish(engine, f"{month:%Y-%m}", f"{month:%Y-%m}", as_of)
    span = Span(month, month, as_of)
    versions.stage(engine, span, RUN)
    return versions.publish(engine, span, RUN, GRACE)


def stored(engine: Engine, month: date = MARCH) -> list[Version]:
    with engine.connect() as connection:
        return versions.load(connection, month, month)


def test_preliminary_until_the_days_of_grace_are_over(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    assert report(engine, BEFORE_CLOSE) == [MARCH]
    (version,) = stored(engine)
    assert (version.version, version.is_closed, version.cut_off) == (0, False, BEFORE_CLOSE)
    assert report(engine, CLOSED) == [MARCH]
    (version,) = stored(engine)
    assert (version.version, version.name, version.note) == (
        1,
        "version 1",
        "First closed version.",
    )


def test_a_preliminary_version_is_replaced(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, D(2026, 3, 20))
    insert(engine, [Term(D(2026, 3, 6), customer=2)])
    report(engine, BEFORE_CLOSE)
    (version,) = stored(engine)
    assert version.figures[0]["mrr"] == "20.00"


@pytest.mark.parametrize("as_of", [BEFORE_CLOSE, CLOSED])
def test_the_same_again_publishes_nothing(engine: Engine, as_of: date) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, as_of)
    before = stored(engine)
    assert report(engine, as_of) == []
    assert stored(engine) == before


def test_a_later_cut_off_with_the_same_figures_is_no_new_version(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    assert report(engine, LATER) == []


def test_later_truth_is_a_new_version_that_says_what_changed(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    (first,) = stored(engine)
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=2, kind="renewal")])
    assert report(engine, LATER) == [MARCH]
    old, new = stored(engine)
    assert old == first
    assert (new.version, new.cut_off, new.figures[0]["mrr"]) == (2, LATER, "12.50")
    assert new.note == (
        "Changed since version 1: USD: MRR 10.00 -> 12.50 (+2.50), active plans 1 -> 2 (+1),"
        " customers 1 -> 2 (+1), renewals 0 -> 1 (+1), net amount of renewals 0.00 -> 2.50 (+2.50),"
        " revenue recognised 8.71 -> 10.56 (+1.85),"
        " deferred revenue at the end 1.29 -> 1.94 (+0.65)."
    )
    ((mrr,),) = rows(engine, "SELECT mrr FROM revenue.monthly_report WHERE version = 1")
    assert mrr == 10


def test_a_currency_that_appears_is_told(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    insert(engine, [Term(D(2026, 3, 9), customer=2, currency="EUR")])
    report(engine, LATER)
    assert "EUR: MRR 0 -> 10.00 (+10.00)" in stored(engine)[-1].note
    assert "USD" not in stored(engine)[-1].note


def test_a_replay_of_an_earlier_day_changes_no_closed_month(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, LATER)
    insert(engine, [Term(D(2026, 3, 9), customer=2)])
    assert report(engine, BEFORE_CLOSE) == []
    assert [v.version for v in stored(engine)] == [1]


def test_an_empty_month_is_closed_too(engine: Engine) -> None:
    assert report(engine, CLOSED) == [MARCH]
    (version,) = stored(engine)
    assert (version.version, version.figures) == (1, ())
    assert report(engine, LATER) == []


def test_nobody_changes_a_published_version(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    for statement in (
        "UPDATE revenue.monthly_report SET mrr = 1",
        "DELETE FROM revenue.monthly_report",
        "UPDATE revenue.report_versions SET note = ''",
        "DELETE FROM revenue.report_versions",
    ):
        with (
            pytest.raises(DBAPIError, match="a correction is a new version"),
            engine.begin() as connection,
        ):
            connection.execute(text(statement))


def test_a_month_without_figures_is_named(engine: Engine) -> None:
    publish(engine, "2026-03", "2026-03", LATER)
    with pytest.raises(UnknownThing, match="no monthly figures for 2026-04, 2026-05: materialise"):
        versions.stage(engine, Span(MARCH, D(2026, 5, 1), LATER), RUN)


def test_the_headline_is_in_the_table(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2026, 2, 5), "8.00"),
            Term(D(2026, 3, 5), kind="renewal"),
            Term(D(2026, 3, 9), customer=2),
            Term(D(2026, 3, 9), customer=3, kind="reactivation"),
            Term(D(2026, 3, 9), "5.00", customer=4, kind="change"),
        ],
    )
    report(engine, CLOSED)
    found = rows(
        engine,
        "SELECT month, currency, version, new_plans, renewals, reactivations,"
        " changes, opening_mrr, mrr, active_plans, customers"
        " FROM revenue.monthly_report",
    )
    assert found == [(MARCH, "USD", 1, 1, 1, 1, 1, 8, 35, 4, 4)]


def test_a_plan_that_is_renamed_is_no_other_truth(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    (first,) = stored(engine)
    rename = text("UPDATE prepaid.plans SET name = 'Another name'")
    with engine.begin() as connection:
        connection.execute(rename)
    assert report(engine, LATER) == []
    assert stored(engine) == [first]
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=2)])
    with engine.begin() as connection:
        connection.execute(rename)
    report(engine, LATER)
    assert stored(engine)[-1].figures[0]["plans"][0]["name"] == "Another name"


def test_a_version_of_an_older_release_is_compared_by_what_it_knew(
    engine: Engine, tmp_path: Path
) -> None:
    """It knew neither plan changes nor payments taken back: with none of them nothing is new."""
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.execute(
            text(
                "UPDATE revenue.monthly_report SET figures ="
                " (figures #- '{kinds,change}') - ARRAY['reversals', 'credit_notes']"
            )
        )
        connection.execute(
            text(
                "UPDATE revenue.report_versions SET document = NULL, fingerprint = NULL,"
                " computed_at = NULL"
            )
        )
    assert report(engine, LATER) == []
    (old,) = stored(engine)
    rendering = Rendering(document([old], GRACE), catalogue.of("en_GB", tmp_path))
    assert all(rendering.as_(kind) for kind in ENDINGS)
    assert b'"reversals"' in rendering.as_("json")
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=2, kind="change")])
    report(engine, LATER)
    assert (
        "changes 0 -> 1 (+1), net amount of changes 0.00 -> 2.50 (+2.50)" in stored(engine)[-1].note
    )


def test_a_late_refund_is_later_truth(engine: Engine) -> None:
    invoice(engine)
    report(engine, CLOSED)
    land(engine, [record("Success", PAID), record("Refunded", BACK)])
    assert report(engine, LATER) == [MARCH]
    assert stored(engine)[-1].note == (
        "Changed since version 1: USD: payment reversals 0.00 -> 100.00 (+100.00),"
        " cash 0.00 -> -100.00 (-100.00)."
    )
