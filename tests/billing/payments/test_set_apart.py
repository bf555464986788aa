"""Records that nothing can be done with stop neither the others nor any list or figure."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from prepaid_pipeline.cli.main import prepaid
from prepaid_pipeline.database import migrations, queries
from prepaid_pipeline.desk.rendering import environment
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import decisions
from tests.revenue.history import publish
from tests.world import World, context

HUGE = "9" * 131_000
AMOUNTS = [HUGE, f"-{HUGE}", "NaN", "Infinity", "-Infinity", f"0.{'1' * 16_000}", "10.73", None]
TIMES = [
    "infinity",
    "-infinity",
    "4713-01-01 00:00:00 BC",
    "0001-01-01 00:00:00 BC",
    "10000-01-01 00:00:00Z",
    "294276-12-31 23:59:59.999999Z",
    "2026-11-02 10:00:00Z",
    None,
]
STATUSES = ["Success", "Pending", "Failed", "Refunded", "Chargeback", "ChargebackReversed", "?"]
# The last day of the calendar is over there, and the first one not begun.
FAR = ZoneInfo("Pacific/Kiritimati")


@contextmanager
def breaking(engine: Engine) -> Iterator[None]:
    """While a record with the reference poison cannot be judged, as nobody knows how yet."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION pg_temp_break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.outcome IS NOT NULL AND NOT NEW.set_apart THEN"
            " PERFORM 1 / 0; END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER break BEFORE UPDATE ON prepaid.transactions FOR EACH ROW"
            " WHEN (NEW.provider_ref = 'poison') EXECUTE FUNCTION pg_temp_break()"
        )
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER break ON prepaid.transactions")
        connection.exec_driver_sql("DROP FUNCTION pg_temp_break")


def outcome(world: World, record: int | None) -> tuple[str, str | None, bool]:
    ((found, reason, apart),) = world.rows(
        "SELECT outcome, outcome_reason, set_apart FROM prepaid.transactions"
        " WHERE transaction_id = :r",
        r=record,
    )
    return found, reason, apart


def findings(world: World) -> list[str]:
    return [line for check in invariants.run(world.engine, context()) for line in check.findings]


def test_what_breaks_matching_is_parked_alone(world: World) -> None:
    world.tax_rate("0.0725")
    for _ in range(4):
        world.due_renewal()
    numbers = [world.invoice(plan) for plan in world.open()]
    with breaking(world.engine):
        first = [world.record(number) for number in numbers[:2]]
        poison = world.record(numbers[1], provider_ref="poison")
        rest = [world.record(number) for number in numbers[2:]]
        assert world.match() == {"matched": 4, "parked": 1, "superseded": 0, "waiting": 0}
        assert [outcome(world, record)[0] for record in first + rest] == ["matched"] * 4
        said = ("parked", "judging the record failed: division by zero", True)
        assert outcome(world, poison) == said
        assert findings(world) == []
        assert sum(world.match().values()) == 0
        # What belongs together with it goes on without it, and it stays where it is.
        world.record(numbers[1], provider_ref="poison", status="Pending", amount="1")
        again = world.record(numbers[1])
        assert world.match()["parked"] == 2
        assert outcome(world, again)[0] == "parked"
        assert outcome(world, poison) == said
    # What was said about it may be a name: the audit log has none of it.
    assert world.rows(
        "SELECT detail FROM prepaid.audit_log WHERE entity_id = :r AND event = 'transaction_parked'",
        r=poison,
    ) == [("judging the record failed: …",)]


def test_a_person_has_it_judged_again(world: World) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    with breaking(world.engine):
        poison = world.record(world.invoice(plan), provider_ref="poison")
        world.match()
    clerk = world.officer("test_clerk")
    assert poison is not None
    decisions.assign(world.engine, clerk, poison, world.invoice(plan), "looked at")
    assert world.match()["matched"] == 1
    assert outcome(world, poison) == ("matched", None, False)
    assert findings(world) == []


@pytest.fixture(scope="module")
def poisoned(module_world: World) -> World:
    """Every amount with every time and every status; two records a payment, for one invoice."""
    world = module_world
    migrations.write_timezone(world.engine, FAR)
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount,"
                " currency, status, occurred_at) VALUES ('bank', :ref, :number,"
                " CAST(:amount AS numeric), 'USD', :status, CAST(:at AS timestamptz))"
            ),
            [
                {
                    "ref": f"p{place // 2 % 20}",
                    "number": world.invoice(plan),
                    "amount": amount,
                    "status": status,
                    "at": at,
                }
                for place, (amount, status, at) in enumerate(
                    itertools.product(AMOUNTS, STATUSES, TIMES)
                )
            ],
        )
    return world


def test_figures_are_made_before_anything_is_judged(poisoned: World) -> None:
    publish(poisoned.engine, "2026-10", "2026-12")


def test_all_of_them_are_judged(poisoned: World) -> None:
    poisoned.match()
    assert poisoned.sql("SELECT count(*) FROM prepaid.transactions WHERE outcome IS NULL") == 0
    assert poisoned.sql("SELECT count(*) FROM prepaid.transactions WHERE set_apart") == 0
    assert findings(poisoned) == []
    publish(poisoned.engine, "2026-10", "2026-12")


def test_every_list_shows_them(poisoned: World, monkeypatch: pytest.MonkeyPatch) -> None:
    url = poisoned.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("PREPAID_DATABASE_URL", url)
    (plan,) = poisoned.plans()
    for command in (
        ["payments", "list"],
        ["payments", "list", "--json"],
        ["payments", "suggestions"],
        ["invoices", "list"],
        ["tasks", "list"],
        ["tasks", "list", "--json"],
        ["story", str(plan)],
    ):
        told = CliRunner().invoke(prepaid, command)
        assert told.exit_code == 0, (command, told.output[-500:], told.exception)
        assert len(told.output) > 10, command
    assert "10000-01-01" in CliRunner().invoke(prepaid, ["payments", "list", "--json"]).output


def test_every_page_shows_them(poisoned: World) -> None:
    moment = environment(FAR).filters["moment"]
    pages = {
        "desk/parked": {"list": {"after": 0, "rows": 1000}, "one": {}},
        "desk/payments": {"list": {"after": 0, "rows": 1000, "show": "differ"}, "records": {}},
    }
    (number,) = {poisoned.invoice(plan) for plan in poisoned.plans()}
    asked = {
        "search": None, "amounts": [], "spellings": [], "show": None, "today": date(2026, 11, 2), "person": None, "currency": None,
        "invoice_number": number,
        "task": poisoned.sql("SELECT max(task_id) FROM prepaid.tasks WHERE kind = 'payment_review'"),
    }  # fmt: skip
    for file, parts in pages.items():
        for part, params in parts.items():
            with poisoned.engine.connect() as connection:
                statement = queries.statement(file, part)
                for row in statement.execute(connection, asked | params).mappings():
                    if row.get("occurred_at") is not None:
                        assert moment(row["occurred_at"])
