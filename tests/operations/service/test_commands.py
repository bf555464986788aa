"""migrate, db url, down, and settings that cannot be used."""

import psycopg
import pytest
from sqlalchemy import URL, Engine

from prepaid_pipeline.database import leases, migrations
from prepaid_pipeline.operations.service.lock import UP
from tests.operations.service.conftest import Command


def test_db_url_is_what_psql_takes(prepaid: Command, database_url: URL) -> None:
    code, output, _ = prepaid("db", "url")
    assert code == 0
    with psycopg.connect(output.strip()) as connection:
        row = connection.execute("SELECT current_database()").fetchone()
    assert row == (database_url.database,)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_db_url_has_no_driver(prepaid: Command, scheme: str) -> None:
    _, output, _ = prepaid("db", "url", database_url=f"{scheme}://ann:p%40ss@db.example.com/plans")
    assert output == "postgresql://ann:p%40ss@db.example.com/plans\n"


def test_migrate_again_changes_nothing(prepaid: Command, engine: Engine) -> None:
    code, output, _ = prepaid("migrate")
    assert (code, output) == (0, f"The database is at migration {migrations.newest()}.\n")


def test_down_without_a_server(prepaid: Command) -> None:
    code, output, _ = prepaid("down")
    assert code == 0
    assert output.startswith("No embedded PostgreSQL runs in ")


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("database_url", "mysql://db/plans", "PREPAID_DATABASE_URL is for mysql"),
        ("database_url", "not a url", "PREPAID_DATABASE_URL cannot be read"),
        ("grace_days", "7.5", "PREPAID_GRACE_DAYS='7.5': expected a whole number from 0 to 366"),
        ("lead_days", "-1", "PREPAID_LEAD_DAYS='-1': expected"),
        ("port", "70000", "PREPAID_PORT='70000': expected a whole number from 1 to 65535"),
        ("first_month", "2015", "PREPAID_FIRST_MONTH='2015': expected a month such as 2015-01"),
        ("timezone", "Mars/Base", "PREPAID_TIMEZONE='Mars/Base': expected a time zone"),
    ],
)
def test_a_setting_that_cannot_be_used(
    prepaid: Command, setting: str, value: str, expected: str
) -> None:
    code, output, errors = prepaid("migrate", **{setting: value})
    assert code == 1
    assert output == ""
    assert errors.startswith(f"prepaid: {expected}")
    assert errors.count("\n") == 1


def test_a_wrong_database_says_what_to_check(prepaid: Command, database_url: URL) -> None:
    wrong = database_url.set(database="nowhere").render_as_string(hide_password=False)
    code, _, errors = prepaid("migrate", database_url=wrong)
    assert code == 1
    assert 'database "nowhere" does not exist' in errors
    assert "Check PREPAID_DATABASE_URL" in errors


def test_two_ups_are_refused_by_the_lock(prepaid: Command, engine: Engine) -> None:
    with leases.held(engine, UP, "prepaid up on elsewhere"):
        code, _, errors = prepaid("up")
    assert code == 1
    assert "'prepaid up' runs on this database already (prepaid up on elsewhere, since" in errors
