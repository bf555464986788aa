"""A database at 0006 becomes one of 0.1.0 only if it is made like it; else nothing is changed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, Engine, text

from prepaid_pipeline.database import adoption, connections, embedded, migrations, queries
from prepaid_pipeline.errors import DatabaseNotReady
from tests.database import oldest_server
from tests.database.releases import at_release, backup, everything

# What somebody may have done to a database, and how it is told.
DRIFT = {
    "CREATE TABLE prepaid.mine ()": "table prepaid.mine should not be there",
    "DROP TABLE prepaid.desk_sessions": "table prepaid.desk_sessions is missing",
    "ALTER TABLE prepaid.plans ADD mine text": "column prepaid.plans.mine should not be there",
    "ALTER TABLE prepaid.erasures DROP erased_at": "column prepaid.erasures.erased_at is missing",
    "ALTER TABLE prepaid.installation ALTER task_days SET DEFAULT 4": (
        "column prepaid.installation.task_days differs"
    ),
    "ALTER TABLE prepaid.installation ALTER grace_days DROP NOT NULL": (
        "column prepaid.installation.grace_days differs"
    ),
    "ALTER TABLE prepaid.installation DROP CONSTRAINT installation_grace_days_check": (
        "constraint installation_grace_days_check of prepaid.installation is missing"
    ),
    "DROP INDEX prepaid.audit_log_of_holds": "index prepaid.audit_log_of_holds is missing",
    "ALTER TABLE prepaid.audit_log DISABLE TRIGGER audit_log_append_only": (
        "trigger audit_log_append_only of prepaid.audit_log differs"
    ),
    "CREATE OR REPLACE FUNCTION prepaid.run_id() RETURNS text LANGUAGE sql STABLE RETURN 'mine'": (
        "function prepaid.run_id() differs"
    ),
    "CREATE OR REPLACE VIEW prepaid.four_eyes AS"
    " SELECT NULL::bigint AS task_id, NULL::text AS person, NULL::text AS what": (
        "view prepaid.four_eyes differs"
    ),
    "ALTER VIEW prepaid.colleagues SET (security_barrier)": "view prepaid.colleagues differs",
    "ALTER FUNCTION prepaid.today SECURITY DEFINER": "function prepaid.today() differs",
    "GRANT DELETE ON prepaid.invoices TO finance": (
        "right of finance to table prepaid.invoices differs"
    ),
    "GRANT SELECT (password_hash) ON prepaid.desk_accounts TO finance": (
        "right of finance to column prepaid.desk_accounts.password_hash should not be there"
    ),
    "REVOKE EXECUTE ON FUNCTION prepaid.run_id FROM PUBLIC": (
        "right of everybody to function prepaid.run_id() is missing"
    ),
    "REVOKE USAGE ON SCHEMA revenue FROM leadership": (
        "right of leadership to schema revenue is missing"
    ),
}
ELSEWHERE = """
CREATE ROLE adoption_reader;
GRANT USAGE ON SCHEMA prepaid TO adoption_reader;
GRANT SELECT ON prepaid.invoices TO adoption_reader;
CREATE SCHEMA of_somebody;
CREATE VIEW of_somebody.invoices AS SELECT * FROM prepaid.invoices;
"""


@pytest.fixture(scope="module")
def engine(cluster: URL) -> Iterator[Engine]:
    """A database at 0006, which no test changes."""
    with at_release(cluster, adoption.LAST) as engine:
        yield engine


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """In a transaction that is rolled back."""
    with engine.connect() as connection:
        yield connection


def test_what_differs_is_told(connection: Connection) -> None:
    queries.run_file(connection, f"migrations/from_{adoption.LAST}")
    for drift in DRIFT:
        connection.execute(text(drift))
    assert sorted(adoption.differences(connection)) == sorted(DRIFT.values())


def test_the_first_of_many_are_named(connection: Connection) -> None:
    for number in range(7):
        connection.execute(text(f"CREATE TABLE prepaid.mine_{number} ()"))
    with pytest.raises(DatabaseNotReady, match=r"table prepaid.mine_4 [^;]* and 2 more\."):
        adoption.adopt(connection)


def test_what_is_elsewhere_is_nobodys_business(connection: Connection) -> None:
    """Rights of a role that the product does not know, and what reads its tables."""
    connection.execute(text(ELSEWHERE))
    adoption.adopt(connection)
    assert migrations.applied(connection) == adoption.FIRST_RELEASE
    views = "SELECT count(*) FROM of_somebody.invoices WHERE status = 'Paid'"
    assert connection.execute(text(views)).scalar() == 4


def test_a_refused_database_stays_as_it_was(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE INDEX mine ON prepaid.invoices (net)"))
    before = everything(engine.url)
    with pytest.raises(DatabaseNotReady, match=r"0006.* index prepaid.mine should not be there"):
        migrations.upgrade(engine)
    assert everything(engine.url) == before
    with engine.begin() as connection:
        assert migrations.applied(connection) == adoption.LAST
        connection.execute(text("DROP INDEX prepaid.mine"))


@pytest.mark.long
@pytest.mark.skipif(not oldest_server.is_installed(), reason="no programs of the oldest server")
def test_on_the_oldest_server(tmp_path: Path) -> None:
    """It writes views and functions in other words than the newest."""
    with oldest_server.running() as url:
        _restore(url, tmp_path)
        engine = connections.engine_for(url)
        with engine.connect() as connection:
            connection.execute(text("DROP INDEX prepaid.audit_log_of_holds"))
            with pytest.raises(
                DatabaseNotReady, match=r"makes: index \S+_of_holds is missing\. Put"
            ):
                adoption.adopt(connection)
        migrations.upgrade(engine)
        migrations.require_current(engine)
        engine.dispose()


def _restore(url: URL, folder: Path) -> None:
    """Into a server that is older than the one of the backup, which no pg_restore does by itself:
    without the setting and the privilege that it does not know.
    """
    restore = embedded.programs() / "pg_restore"
    dumped = subprocess.run(
        [restore, "--no-owner", "--file=-", backup(adoption.LAST, folder)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    psql = [
        oldest_server.PROGRAMS / "psql",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--output=/dev/null",
    ]
    roles = "CREATE ROLE finance; CREATE ROLE customer_success; CREATE ROLE leadership;"
    roles += "CREATE ROLE engineering; CREATE ROLE desk;"
    subprocess.run(
        [*psql, url.render_as_string(hide_password=False)],
        input=roles + re.sub("SET transaction_timeout = 0;|,MAINTAIN|MAINTAIN,", "", dumped),
        check=True,
        text=True,
    )
