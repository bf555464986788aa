"""Whatever a provider inserts is landed, and every reader goes on with it in the tables."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import URL

from prepaid_pipeline.operations import invariants
from prepaid_pipeline.operations.backup import dumping, restoring
from prepaid_pipeline.revenue.report.content.figures import collect
from prepaid_pipeline.settings.load import Settings
from tests.billing.payments.poison import AMOUNTS, TIMES, Usual, land, records
from tests.cli.conftest import Prepaid, prepaid, typed
from tests.importer.folders import take
from tests.revenue.history import publish
from tests.world import TODAY, World, context

__all__ = ["prepaid", "typed"]
_LISTS = (
    ("payments", "list"),
    ("payments", "list", "--json"),
    ("payments", "suggestions"),
    ("payments", "suggestions", "--json"),
    ("tasks", "list"),
    ("tasks", "list", "--json"),
    ("held", "list"),
    ("drain", "--as-of", "2026-11-02"),
    ("check", "--as-of", "2026-11-02"),
    ("audit", "seal"),
    ("audit", "verify"),
)


@pytest.fixture
def usual(world: World) -> Usual:
    """Of the first of two open invoices."""
    world.tax_rate("0.0725")
    world.due_renewal()
    world.due_renewal()
    plan, _ = world.open()
    customer = world.sql(
        "SELECT customer_ref FROM prepaid.customers JOIN prepaid.service_plans USING (customer_id)"
        " WHERE service_plan_id = :plan",
        plan=plan,
    )
    return Usual(world.invoice(plan), customer)


def test_every_reader_goes_on(world: World, usual: Usual, prepaid: Prepaid) -> None:
    rows = records(usual)
    assert land(world, rows) > len(rows) * 0.8
    world.match()
    assert world.sql("SELECT count(*) FROM prepaid.transactions WHERE outcome IS NULL") == 0
    for command in _LISTS:
        done = prepaid(*command)
        assert done.code == 0, (command, done.err[:2000])
    for plan in world.plans():
        assert prepaid("story", plan).code == 0
    publish(world.engine, "2026-09", "2026-11", date(2026, 11, 30))
    with world.engine.connect() as connection:
        assert collect(connection, date(2026, 9, 1), date(2026, 11, 1))
    found = invariants.run(world.engine, context())
    assert [line for check in found for line in check.findings] == []


@pytest.mark.parametrize("order", [1, -1])
def test_money_taken_back_on_an_unknown_day_counts(world: World, usual: Usual, order: int) -> None:
    (plan, *_) = world.plans()
    rows = [usual.but(), usual.but(status="Chargeback", occurred_at="infinity")][::order]
    land(world, rows)
    world.match()
    outcomes = world.rows("SELECT status, outcome FROM prepaid.transactions ORDER BY status")
    assert outcomes == [("Chargeback", "parked"), ("Success", "superseded")]
    assert world.status(plan) == "Pending"


@pytest.mark.parametrize(
    ("column", "values"), [("amount", AMOUNTS), ("occurred_at", TIMES)], ids=["amounts", "times"]
)
def test_what_a_column_cannot_bear_stands_beside_the_record(
    world: World, usual: Usual, column: str, values: tuple[str, ...]
) -> None:
    for value in values:
        kept = world.sql(
            f"SELECT CAST(CAST(:value AS {'numeric' if column == 'amount' else 'timestamptz'})"
            " AS text)",
            value=value,
        )
        land(world, [usual.but(provider_ref=value, **{column: value})])
        # The same again is the same event.
        assert land(world, [usual.but(provider_ref=value, **{column: value})]) == 0
        assert world.rows(
            f"SELECT {column}, as_delivered FROM prepaid.transactions"  # noqa: S608
            " WHERE provider_ref = :value",
            value=value,
        ) == [(None, {column: kept})]


def test_finance_sees_what_was_delivered(world: World, usual: Usual, prepaid: Prepaid) -> None:
    land(world, [usual.but(amount="1e300")])
    world.match()
    (parked,) = prepaid("payments", "list", "--json").json()
    assert parked["reason"].startswith("paid 1000000")
    assert parked["as_delivered"] == {"amount": "1" + "0" * 300}
    assert world.sql("SELECT as_delivered ->> 'amount' FROM prepaid.parked_payments")


def test_a_backup_of_it_is_whole(
    world: World, usual: Usual, database_url: URL, settings: Settings, tmp_path: Path
) -> None:
    land(world, records(usual))
    world.match()
    file = tmp_path / "prepaid.dump"
    dumping.create(world.engine, database_url, file)
    done = restoring.drill(file, settings, here=database_url, as_of=TODAY)
    assert done.findings == []


FILE = """\
provider,provider_ref,invoice_number,amount,currency,status,occurred_at
bank,a1,,1e400000,USD,Success,2026-11-02T10:00:00Z
bank,a2,,99999999999999999999.50,USD,Success,2026-11-02T10:00:00Z
bank,t1,,10.73,USD,Success,0000-00-00 00:00:00
bank,t2,,10.73,USD,Success,10000-01-01T00:00:00Z
bank,t3,,10.73,USD,Success,infinity
bank,t4,,10.73,USD,Success,-0044-03-15
bank,t5,,0.0000000000000001,USD,Success,2500-01-01T00:00:00+02:00
bank,ok,,10.73,USD,Success,2026-11-02T10:00:00Z
"""


def test_a_file_lands_every_line(world: World, tmp_path: Path) -> None:
    report = take(world.engine, tmp_path, {"transactions": FILE})["transactions"]
    assert (report.errors, report.rows, report.added) == ([], 8, 8)
    assert take(world.engine, tmp_path, {"transactions": FILE})["transactions"].added == 0
    found = world.rows("SELECT provider_ref, as_delivered FROM prepaid.transactions ORDER BY 1")
    assert dict(found) == {
        "a1": {"amount": "1e400000"},
        "a2": {"amount": "99999999999999999999.50"},
        "t1": {"occurred_at": "0000-00-00 00:00:00"},
        "t2": {"occurred_at": "10000-01-01T00:00:00Z"},
        "t3": {"occurred_at": "infinity"},
        "t4": {"occurred_at": "-0044-03-15"},
        "t5": {"amount": "0.0000000000000001"},
        "ok": None,
    }
    assert world.match()["parked"] == 8
