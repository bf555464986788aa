"""People who leave a transaction open: the pipeline goes on without their rows, and ends them."""

import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.context import transaction
from prepaid_pipeline.database import queries, waits
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.service import guards, metrics
from tests.database import oldest_server
from tests.process.blocked import Owned, is_ended, owned
from tests.world import context


@pytest.fixture(
    scope="module",
    params=[
        "newest",
        pytest.param(
            "oldest",
            marks=[
                pytest.mark.long,
                pytest.mark.skipif(
                    not oldest_server.is_installed(), reason="no programs of the oldest server"
                ),
            ],
        ),
    ],
)
def there(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Owned]:
    home: Path = tmp_path_factory.mktemp("home")
    if request.param == "oldest":
        with oldest_server.running() as server, owned(server, home) as found:
            yield found
    else:
        server = request.getfixturevalue("cluster")
        with owned(server, home) as found:
            yield found


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "PATIENCE_SECONDS", 1.2)
    monkeypatch.setattr(waits, "_LOOK_SECONDS", 0.2)


def ended(there: Owned) -> list[str]:
    """What the audit log says of the sessions that were ended, the newest last."""
    asked = "SELECT detail FROM prepaid.audit_log WHERE event = 'blocking_session_ended'"
    return [detail for (detail,) in there.world.rows(f"{asked} ORDER BY audit_id")]


def test_a_decision_that_is_left_open(there: Owned) -> None:
    """The others are settled, it is said whose row was passed over, and later it is taken."""
    world, plans = there.world, there.ready(3)
    with there.person("finance") as person:
        name, pid = person.info.user, person.info.backend_pid
        person.execute(
            "UPDATE prepaid.payment_verifications SET decision = 'approved', note = 'wait'"
            " WHERE task_id = %s",
            [world.task(plans[1])],
        )
        done = there.drain(60)
        assert done.settled == 2
        assert [world.status(plan) for plan in plans] == ["Active", "Pending", "Active"]
        (said,) = done.blocked_by
        assert said.startswith(f"{name} (server process {pid}) has kept the pipeline from ")
        assert not is_ended(person)
        shown = metrics.text(there.engine, there.settings(60))
        assert f'prepaid_blocking_session_seconds{{login="{name}"}}' in shown
        with pytest.raises(PrepaidError, match=rf"{name} .* It is ended after PREPAID_BLOCKED"):
            guards.nobody_blocks(there.settings(60), there.engine)

        done = there.drain(1)
        assert (done.settled, done.blocked_by) == (1, [])
        assert is_ended(person)
    assert world.status(plans[1]) == "Active"
    assert re.fullmatch(
        rf"The session of {name} \(server process {pid}\) was ended: its open transaction had kept"
        r" the pipeline from \w+ for \d+ s",
        ended(there)[-1],
    )
    assert guards.nobody_blocks(there.settings(60), there.engine).startswith("nobody")


@pytest.mark.parametrize("left_open", ["a cancellation", "a table's lock", "an own row"])
def test_what_all_need_is_waited_for_and_its_session_ended(there: Owned, left_open: str) -> None:
    """The lock of the matching, and tables that a person may lock or has written to."""
    (plan,) = there.ready(1)
    world, before = there.world, len(ended(there))
    number = world.invoice(plan)
    with there.person("finance") as person:
        if left_open == "a cancellation":
            person.execute(
                "SELECT prepaid.cancel(subscription_id, NULL, true, NULL, 'they asked')"
                " FROM prepaid.service_plans WHERE service_plan_id = %s",
                [plan],
            )
        elif left_open == "an own row":
            person.execute("SELECT prepaid.void_invoice(%s, true, 'wrong')", [number])
        else:
            with there.engine.begin() as connection:
                # As a right to write would let them; views give it over the tables behind them.
                connection.execute(text(f'GRANT UPDATE ON prepaid.tasks TO "{person.info.user}"'))
            person.execute("LOCK TABLE prepaid.tasks IN ACCESS EXCLUSIVE MODE")
        done = there.drain(1)
        assert done.blocked_by == []
        assert is_ended(person)
    assert world.status(plan) == "Active"
    assert len(ended(there)) == before + 1


@pytest.mark.parametrize("has_table", [True, False])
def test_a_reader_who_keeps_a_migration_waiting(
    there: Owned, has_table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the migration that brings the table in which blockers are noted."""
    if not has_table:
        monkeypatch.setattr(waits, "_is_there", lambda _: False)
    with there.person("engineering") as person:
        person.execute("SELECT count(*) FROM prepaid.plans")
        name, engine = person.info.user, there.pipeline(1)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE prepaid.plans IN ACCESS EXCLUSIVE MODE"))
        assert is_ended(person)
    engine.dispose()  # the process ends, and not before it is noted
    assert name in ended(there)[-1]


@pytest.mark.long
def test_a_claim_that_is_locked(there: Owned) -> None:
    """A run that finds nothing else says so too, and the session does not stay for ever."""
    (plan,) = there.ready(1)
    lock = "SELECT FROM prepaid.unsettled_plans WHERE service_plan_id = :plan FOR UPDATE"
    with there.person("finance") as person:
        # As functions do that act for a person.
        with there.engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION prepaid.lock_claim(plan bigint) RETURNS void LANGUAGE sql"
                    f" SECURITY DEFINER AS '{lock.replace(':plan', 'plan')}'"
                )
            )
        person.execute("SELECT prepaid.lock_claim(%s)", [plan])
        done = there.drain(60)
        assert done.settled == 0
        assert len(done.blocked_by) == 1
        assert there.drain(1).settled == 1
        assert is_ended(person)
    there.world.sql("DROP FUNCTION prepaid.lock_claim")


def test_a_short_transaction_is_waited_for(there: Owned) -> None:
    """Nothing is passed over that is free in a moment, and nobody is ended."""
    (plan,) = there.ready(1)
    before = ended(there)
    with there.person("finance") as person:
        person.execute(
            "UPDATE prepaid.payment_verifications SET decision = 'approved', note = 'wait'"
            " WHERE task_id = %s",
            [there.world.task(plan)],
        )
        soon = threading.Timer(0.5, person.commit)
        soon.start()
        done = there.drain(60)
        soon.join()
        assert (done.settled, done.blocked_by) == (1, [])
        assert not is_ended(person)
    assert ended(there) == before


@pytest.mark.long
def test_a_session_that_may_not_be_ended(there: Owned) -> None:
    """A login that somebody else has made: the doctor says what to do."""
    name = f"foreign_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(there.admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    with there.engine.begin() as connection:
        connection.execute(text(f'GRANT USAGE ON SCHEMA prepaid TO "{name}"'))
        connection.execute(text(f'GRANT SELECT ON prepaid.plans TO "{name}"'))
    with there.log_in(name) as session:
        session.execute("SELECT count(*) FROM prepaid.plans")
        engine = there.pipeline(1)
        with (
            pytest.raises(DBAPIError, match="lock timeout"),
            transaction(engine, context(), 3) as connection,
        ):
            connection.execute(text("LOCK TABLE prepaid.plans IN ACCESS EXCLUSIVE MODE"))
        engine.dispose()
        with pytest.raises(PrepaidError, match=rf"{name} .* cannot be ended: (permission|must)"):
            guards.nobody_blocks(there.settings(1), there.engine)
        assert not is_ended(session)
    with there.engine.begin() as connection:
        connection.execute(text(f'REVOKE ALL ON prepaid.plans FROM "{name}"'))
        connection.execute(text(f'REVOKE ALL ON SCHEMA prepaid FROM "{name}"'))


@pytest.mark.parametrize("team", ["finance", "customer_success", "leadership", "engineering"])
def test_people_cannot_reach_the_locks(there: Owned, team: str) -> None:
    with there.person(team) as person:
        for attempt in (
            "SELECT 1 FROM prepaid.locks",
            "SELECT 1 FROM prepaid.locks FOR UPDATE",
            "LOCK TABLE prepaid.locks IN ACCESS SHARE MODE",
            "DELETE FROM prepaid.locks",
            "SELECT prepaid.take_lock('payment matching')",
            "DELETE FROM prepaid.blocking_sessions",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                person.execute(attempt)
            person.rollback()


def test_nothing_takes_an_advisory_lock(there: Owned) -> None:
    """Any login can hold such a lock for ever, whatever its rights."""
    functions = there.world.rows(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosrc ~* 'advisory'"
        " AND pronamespace IN ('prepaid'::regnamespace, 'revenue'::regnamespace)"
    )
    assert functions == []
    folder = queries.sql_directory()
    assert [
        str(path.relative_to(folder))
        for path in folder.rglob("*.sql")
        if path.parent.name != "migrations" and re.search(r"pg_\w*advisory", path.read_text())
    ] == []
