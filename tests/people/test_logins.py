"""People with logins of their own, two installations on one server, and people who left.

The pipeline's user is no superuser. On the oldest server that the product takes as well.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, timedelta

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import connections
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.operations import installation
from prepaid_pipeline.people import accounts, decisions, entry
from prepaid_pipeline.settings.load import load
from tests.database import oldest_server
from tests.people.conftest import sql_as
from tests.people.places import Place, active, invoiced, paid, place, subscription


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
def server(request: pytest.FixtureRequest, cluster: URL) -> Iterator[URL]:
    with ExitStack() as stack:
        is_oldest = request.param == "oldest"
        yield stack.enter_context(oldest_server.running()) if is_oldest else cluster


@pytest.fixture(scope="module")
def here(server: URL) -> Iterator[Place]:
    """An installation with plans that ran out today, one of them active again and two invoiced."""
    with place(server) as found:
        found.world.tax_rate("0.0725")
        yield found


@pytest.fixture(scope="module")
def elsewhere(here: Place, server: URL) -> Iterator[Place]:
    """Another installation on the same server."""
    with place(server) as found:
        yield found


@pytest.fixture(scope="module")
def today(here: Place) -> date:
    found = here.world.sql("SELECT prepaid.today()")
    assert isinstance(found, date)
    return found


HOSTILE = """
SET prepaid.as_of = '{day}'; SET prepaid.run_id = 'forged'; SET prepaid.actor = 'somebody else';
SET datestyle = 'German'; SET timezone = 'Pacific/Kiritimati'; SET intervalstyle = 'sql_standard';
SET search_path = pg_temp, public;
"""


@pytest.mark.parametrize("day", ["1999-12-31", "2199-01-01", "no date at all"])
def test_what_a_session_of_ones_own_says_does_not_count(here: Place, today: date, day: str) -> None:
    plan = active(here, today)
    care = here.person("customer_success")
    here.login(care)
    since = here.world.sql("SELECT max(audit_id) FROM prepaid.audit_log")
    with here.session(care) as run:
        for setting in HOSTILE.format(day=day).strip().split(";")[:-1]:
            run(setting)
        assert run(
            "SELECT prepaid.today(), prepaid.as_of(), prepaid.run_id(), prepaid.actor()"
        ) == [(today, None, None, care)]
        ((number,),) = run(
            "SELECT credit_note_number FROM prepaid.cancel(%s, NULL, true, NULL, 'gone')",
            subscription(here, plan),
        )
    assert number.startswith(f"CN-{today.year}-")
    assert here.world.rows(
        "SELECT DISTINCT actor, run_id, as_of FROM prepaid.audit_log WHERE audit_id > :a", a=since
    ) == [(care, None, None)]
    assert here.world.rows(
        "SELECT r.asked_on, a.after, k.due_on FROM prepaid.requests r"
        " JOIN prepaid.audit_log a ON a.entity = 'request' AND a.entity_id = r.request_id"
        " JOIN prepaid.tasks k ON k.kind = 'payment_refund' AND k.service_plan_id = :p"
        " WHERE r.service_plan_id = :p",
        p=plan,
    ) == [(today, today.isoformat(), today + timedelta(days=3))]


def test_in_our_own_sessions_it_counts(here: Place) -> None:
    """The pipeline's, also under a person's role, and the desk's."""
    ann = here.person("finance")
    desk = f"desk_{uuid.uuid4().hex[:8]}"
    here.admin.sql(f"CREATE ROLE {desk} LOGIN IN ROLE desk")
    here.world.sql("SELECT prepaid.let_desk_in(:n)", n=desk)
    ask = "SELECT prepaid.today(), prepaid.run_id(), prepaid.actor()"
    for login in (here.url.username or "", desk):
        with here.session(login) as run:
            run("SET prepaid.as_of = '2026-11-02'")
            run("SET prepaid.run_id = 'r1'")
            run("SET prepaid.actor = 'a job'")
            assert run(ask) == [(date(2026, 11, 2), "r1", "a job")]
            run(f'SET ROLE "{ann}"')
            assert run(ask) == [(date(2026, 11, 2), "r1", ann)]


def test_who_acts_sees_what_is_there_now(here: Place, today: date) -> None:
    """Otherwise they would be judged by what was there when their transaction began."""
    plan = paid(here, today)
    ann = here.person("finance")
    here.login(ann)
    decide = f"SELECT prepaid.decide_tasks(ARRAY[{here.world.task(plan)}], 'approved')"
    cancel = f"SELECT prepaid.cancel({subscription(here, plan)}, NULL, false, NULL, 'leaves')"
    with here.session(ann) as run:
        for level in ("REPEATABLE READ", "SERIALIZABLE"):
            run(f"SET default_transaction_isolation = '{level.lower()}'")
            for act in (decide, cancel):
                with pytest.raises(psycopg.errors.RaiseException, match=f"isolation level {level}"):
                    run(act)
        run("RESET default_transaction_isolation")
        assert run(decide) == [(1,)]


def test_another_installations_people(here: Place, elsewhere: Place, today: date) -> None:
    """A person of the other database neither connects here, nor reads, nor decides."""
    task = here.world.task(paid(here, today))
    stranger = elsewhere.person("finance")
    elsewhere.login(stranger)
    with elsewhere.session(stranger) as run:
        assert run("SELECT count(*) FROM prepaid.invoices") == [(0,)]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        here.session(stranger).__enter__()
    with pytest.raises(UnknownThing, match=f"no person of this database: .*adopt {stranger}'"):
        decisions.decide(here.world.engine, stranger, [task], "approve", None)
    assert (stranger, "finance") in entry.strangers(here.world.engine)

    # By whatever way they come in, and under whatever role.
    here.admin.sql(f"GRANT CONNECT ON DATABASE {here.url.database} TO {stranger}")
    here.admin.sql(f"GRANT {stranger} TO {here.url.username}")
    for login in (stranger, here.url.username or ""):
        with here.session(login) as run:
            run(f"SET ROLE {stranger}")
            for statement in (
                "SELECT * FROM prepaid.invoices",
                "SELECT * FROM revenue.mrr",
                f"SELECT prepaid.decide_tasks(ARRAY[{task}], 'approved')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="for schema"):
                    run(statement)

    accounts.adopt(here.world.engine, [stranger])
    assert stranger not in dict(entry.strangers(here.world.engine))
    with here.session(stranger) as run:
        assert run(f"SELECT prepaid.decide_tasks(ARRAY[{task}], 'approved')") == [(1,)]


def test_a_team_that_another_installation_gave(here: Place, elsewhere: Place, today: date) -> None:
    """Its roles are the server's, so that ours is in finance, too; here that does not count."""
    task = here.world.task(paid(here, today))
    care = here.person("customer_success")
    accounts.add(elsewhere.world.engine, care, "finance")
    here.login(care)
    with here.session(care) as run:
        decide = f"SELECT prepaid.decide_tasks(ARRAY[{task}], 'approved')"
        with pytest.raises(psycopg.errors.RaiseException, match=f"{care} is not in that team"):
            run(decide)
        accounts.adopt(here.world.engine, [care])
        assert run(decide) == [(1,)]


def test_another_installations_desk(here: Place, elsewhere: Place) -> None:
    desk = f"desk_{uuid.uuid4().hex[:8]}"
    here.admin.sql(f"CREATE ROLE {desk} LOGIN IN ROLE desk")
    elsewhere.world.sql("SELECT prepaid.let_desk_in(:n)", n=desk)
    with elsewhere.session(desk) as run:
        assert run("SELECT * FROM prepaid.desk_account('nobody')") == []
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        here.session(desk).__enter__()
    here.admin.sql(f"GRANT CONNECT ON DATABASE {here.url.database} TO {desk}")
    with here.session(desk) as run, pytest.raises(psycopg.errors.InsufficientPrivilege):
        run("SELECT * FROM prepaid.desk_account('nobody')")


def test_who_has_rights_by_name_keeps_coming_in(here: Place) -> None:
    reader = f"reader_{uuid.uuid4().hex[:8]}"
    here.admin.sql(f"CREATE ROLE {reader} LOGIN")
    here.world.sql(f"GRANT USAGE ON SCHEMA revenue TO {reader}")
    here.world.sql(f"GRANT CONNECT ON DATABASE {here.url.database} TO PUBLIC")
    told = installation.migrate(here.world.engine, load({"PREPAID_HOME": "x"}))
    assert [line for line in told if reader in line] == told != []
    with here.session(reader) as run:
        assert run("SELECT has_database_privilege(current_database(), 'CONNECT')") == [(True,)]
    assert installation.migrate(here.world.engine, load({"PREPAID_HOME": "x"})) == []


def test_a_database_that_belongs_to_somebody_else(server: URL) -> None:
    """Its owner alone can close it; without entry to the schemas nobody reads it all the same."""
    with place(server) as found:
        found.admin.sql(f"ALTER DATABASE {found.url.database} OWNER TO postgres")
        found.admin.sql(f"GRANT CREATE ON DATABASE {found.url.database} TO {found.url.username}")
        found.admin.sql(f"GRANT CONNECT ON DATABASE {found.url.database} TO PUBLIC")
        (told,) = installation.migrate(found.world.engine, load({"PREPAID_HOME": "x"}))
        ann, left = found.person("finance"), found.person("finance")
        found.login(left)
        accounts.set_disabled(found.world.engine, left, True)
        with found.session(left) as run, pytest.raises(psycopg.errors.InsufficientPrivilege):
            run("SELECT * FROM prepaid.invoices")
        for statement in told.partition("As the database's owner: ")[2].split(";")[:2]:
            found.admin.sql(statement)
        assert installation.migrate(found.world.engine, load({"PREPAID_HOME": "x"})) == []
        found.login(ann)
        with found.session(ann) as run:
            assert run("SELECT count(*) FROM prepaid.invoices") == [(0,)]
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            found.session(left).__enter__()


def test_who_is_disabled_reads_nothing(here: Place) -> None:
    """Nor do logins by which they came in, nor sessions that are open; until they are enabled."""
    ann, other = here.person("finance"), here.person("finance")
    own = f"{ann}_sql"
    here.login(ann)
    here.login(other)
    here.admin.sql(f"CREATE ROLE {own} LOGIN IN ROLE {ann}")
    read = "SELECT 1 FROM prepaid.invoices LIMIT 0"
    with here.session(ann) as first, here.session(own) as second, here.session(other) as third:
        # Neither the timeouts nor the transaction that they have open is ours to rely on.
        for run in (first, second):
            run("SET idle_session_timeout = 0")
            run("PREPARE again AS " + read)
            run("BEGIN")
            run(read)
        left = accounts.set_disabled(here.world.engine, ann, True)
        with pytest.raises(psycopg.OperationalError):
            first("EXECUTE again")
        # From 16 on a login that an administrator made is not ours to end.
        if left:
            second("ROLLBACK")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                second("EXECUTE again")
            assert own in left[0]
            here.admin.sql(left[0].partition("As an administrator: ")[2])
        with pytest.raises(psycopg.OperationalError):
            second("EXECUTE again")
        assert third(read) == []
    for login in (ann, own):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            here.session(login).__enter__()
    with pytest.raises(DBAPIError, match="permission denied for schema prepaid"):
        sql_as(here.world, ann, read)
    with pytest.raises(NotAllowed, match=f"{ann} is disabled"):
        decisions.decide(here.world.engine, ann, [1], "approve", None)

    accounts.set_disabled(here.world.engine, ann, False)
    for login in (ann, own):
        with here.session(login) as run:
            assert run(read) == []


def test_again_adding_lets_nobody_in_who_is_disabled(here: Place) -> None:
    ann = here.person("finance")
    accounts.set_disabled(here.world.engine, ann, True)
    accounts.add(here.world.engine, ann, "finance", "ann@example.com")
    accounts.adopt(here.world.engine, [ann])
    installation.migrate(here.world.engine, load({"PREPAID_HOME": "x"}))
    with pytest.raises(DBAPIError, match="permission denied for schema prepaid"):
        sql_as(here.world, ann, "SELECT 1 FROM prepaid.invoices")


def test_a_role_that_an_administrator_made(here: Place, today: date) -> None:
    """CREATE ROLE … LOGIN, as people really do it, before 'prepaid user add' or after GRANT."""
    task = here.world.task(paid(here, today))
    dave = f"dave_{uuid.uuid4().hex[:8]}"
    here.admin.sql(f"CREATE ROLE {dave} LOGIN")
    here.admin.sql(f"GRANT finance TO {dave}")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        here.session(dave).__enter__()
    accounts.add(here.world.engine, dave, "finance")
    with here.session(dave) as run:
        assert run(f"SELECT prepaid.decide_tasks(ARRAY[{task}], 'approved')") == [(1,)]
    # From 16 on such a role is not ours to take.
    if told := entry.advice_on(here.world.engine, [dave]):
        with pytest.raises(NotAllowed, match="Another user made the role"):
            decisions.decide(here.world.engine, dave, [task], "approve", "again")
        here.admin.sql(told[0].partition("As an administrator: ")[2])
    assert entry.advice_on(here.world.engine, [dave]) == []
    assert decisions.decide(here.world.engine, dave, [task], "approve", "again") == 1
    here.login(here.person("finance"))


def test_customer_success_reads_no_words_of_finance(here: Place, today: date) -> None:
    """Not in the story, not in the lists, and not by a condition that tells what it is asked."""
    ann, care = here.person("finance"), here.person("customer_success")
    plan, secret = active(here, today), "card reported stolen"
    waiting = invoiced(here, today)
    task = here.world.task(waiting)
    decisions.reassign(here.world.engine, ann, [task], ann, secret)
    decisions.decide(here.world.engine, ann, [task], "reject", secret)
    decisions.release(here.world.engine, ann, waiting, secret)
    here.login(care)
    leak = "CREATE FUNCTION pg_temp.leak({0}) RETURNS boolean COST 1e-9 LANGUAGE plpgsql AS"
    leak += " $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$"
    told: list[str] = []
    address = here.url.set(username=care).render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
        connection.execute(leak.format("text"))  # type: ignore[arg-type]
        for view, column in (
            ("quality_checks", "note"),
            ("quality_checks", "customer_name"),
            ("decisions", "note"),
            ("plan_events", "what"),
            ("held_plans", "text"),
        ):
            asked = f"SELECT * FROM prepaid.{view} WHERE pg_temp.leak({column})"  # noqa: S608
            rows = connection.execute(asked).fetchall()  # type: ignore[arg-type]
            assert secret not in str(rows), view
        for asked in ("tasks", "holds", "task_assignments"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT note FROM prepaid.{asked}")  # type: ignore[arg-type]  # noqa: S608
        events = connection.execute(
            "SELECT event, what FROM prepaid.plan_events WHERE service_plan_id = %s", (plan,)
        ).fetchall()
    assert told
    assert secret not in str(told)
    assert (
        here.world.sql("SELECT name FROM prepaid.customers ORDER BY customer_id DESC") not in told
    )
    assert {"sign_off", "service_provisioned"} <= {event for event, _ in events}
    assert "payment_record" not in {event for event, _ in events}
    everything = here.world.rows("SELECT what FROM prepaid.plan_events")
    assert str(everything).count(secret) == 4, "for the pipeline's own user nothing is left out"


def test_customer_success_reads_its_own_words(here: Place, today: date) -> None:
    plan = active(here, today)
    ann, care, carla = here.person("finance"), *(here.person("customer_success") for _ in "12")
    for name, note in ((care, "asks for less"), (ann, "owes us money")):
        with connections.acting_as(here.world.engine, name, today) as connection:
            connection.execute(
                text("SELECT prepaid.cancel(:s, NULL, :now, NULL, :n)"),
                {"s": subscription(here, plan), "n": note, "now": name == ann},
            )
    told = str(
        sql_as(
            here.world,
            carla,
            "SELECT what FROM prepaid.plan_events WHERE service_plan_id = :p",
            p=plan,
        )
    )
    assert "asks for less" in told
    assert "owes us money" not in told
