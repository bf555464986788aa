"""Signing in: accounts, lock-out, sessions that end; by the functions that the pages call."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.operations import installation
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.settings.load import Settings
from tests.people.conftest import sql_as
from tests.world import World

Person = Callable[[World, str], str]
Execute = Callable[..., list[tuple[Any, ...]]]
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA"
TOKEN = hashlib.sha256(b"the token").digest()


@pytest.fixture
def login(world: World) -> str:
    """A login of the pages' own, as docs/operate.md has it made."""
    name = "test_desk_login"
    world.sql(
        f"DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    world.sql(f"GRANT desk TO {name}")
    world.sql("SELECT prepaid.let_desk_in(:n)", n=name)
    return name


@pytest.fixture
def desk(world: World, login: str) -> Execute:
    """Execute in a session of the pages' login; the rows."""

    def execute(statement: str, **params: Any) -> list[tuple[Any, ...]]:
        with world.engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {login}")
            return [tuple(row) for row in connection.execute(text(statement), params)]

    return execute


@pytest.fixture
def ann(world: World, person: Person) -> str:
    name = person(world, "finance")
    world.sql("SELECT prepaid.set_password(:n, :h)", n=name, h=HASH)
    return name


def sign_in(desk: Execute, name: str, token: bytes = TOKEN, idle: int = 600) -> None:
    desk("SELECT prepaid.desk_open_session(:t, :n, :i, 3600)", t=token, n=name, i=idle)


def session(desk: Execute, token: bytes = TOKEN) -> list[tuple[Any, ...]]:
    return desk("SELECT person, team, teams FROM prepaid.desk_session(:t)", t=token)


def test_signing_in_and_out(world: World, desk: Execute, ann: str) -> None:
    assert desk("SELECT password_hash, may_try FROM prepaid.desk_account(:n)", n=ann) == [
        (HASH, True)
    ]
    sign_in(desk, ann)
    assert session(desk) == [(ann, "finance", ["finance"])]
    assert session(desk, hashlib.sha256(b"another").digest()) == []
    desk("SELECT prepaid.desk_end_session(:t)", t=TOKEN)
    assert session(desk) == []
    assert world.rows(
        "SELECT event FROM prepaid.audit_log WHERE detail = :n ORDER BY audit_id", n=ann
    ) == [("user_added",), ("password_set",), ("signed_in",)]


def test_nobody(desk: Execute) -> None:
    assert desk("SELECT * FROM prepaid.desk_account('nobody')") == []
    assert desk("SELECT prepaid.desk_failed('nobody')") == [(None,)]
    with pytest.raises(DBAPIError, match="nobody cannot sign in"):
        sign_in(desk, "nobody")


def test_five_wrong_passwords_lock(world: World, desk: Execute, ann: str) -> None:
    for _ in range(4):
        assert desk("SELECT prepaid.desk_failed(:n)", n=ann) == [(None,)]
    ask = "SELECT may_try, failed FROM prepaid.desk_account(:n)"
    assert desk(ask, n=ann) == [(True, 4)]
    (locked,) = desk("SELECT prepaid.desk_failed(:n) > now() + interval '14 minutes'", n=ann)
    assert locked == (True,)
    assert desk(ask, n=ann) == [(False, 5)]
    with pytest.raises(DBAPIError, match=f"{ann} cannot sign in"):
        sign_in(desk, ann)
    world.sql("UPDATE prepaid.desk_accounts SET locked_until = now() - interval '1 second'")
    assert desk(ask, n=ann) == [(True, 5)]
    # One more wrong one locks again; the right one forgets them all.
    desk("SELECT prepaid.desk_failed(:n)", n=ann)
    assert desk(ask, n=ann) == [(False, 6)]
    world.sql("UPDATE prepaid.desk_accounts SET locked_until = now() - interval '1 second'")
    sign_in(desk, ann)
    assert desk(ask, n=ann) == [(True, 0)]


@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE prepaid.desk_sessions SET expires_at = now() - interval '1 second'",
        "UPDATE prepaid.desk_sessions SET last_seen_at = now() - interval '601 seconds'",
        "UPDATE prepaid.desk_sessions SET revoked_at = now()",
        "SELECT prepaid.desk_end_sessions(person) FROM prepaid.desk_sessions",
        "SELECT prepaid.set_disabled(person, true) FROM prepaid.desk_sessions",
        "SELECT prepaid.set_password(person, password_hash) FROM prepaid.desk_accounts",
    ],
)
def test_a_session_ends(world: World, desk: Execute, ann: str, ended: str) -> None:
    sign_in(desk, ann)
    assert session(desk) != []
    world.sql(ended)
    assert session(desk) == []
    assert session(desk) == []


def test_being_used_keeps_a_session_awake(world: World, desk: Execute, ann: str) -> None:
    sign_in(desk, ann)
    world.sql("UPDATE prepaid.desk_sessions SET last_seen_at = now() - interval '599 seconds'")
    assert session(desk) != []
    idle = "SELECT extract(epoch FROM now() - last_seen_at) FROM prepaid.desk_sessions"
    assert world.sql(idle) < 60


def test_who_left_the_team_is_out(world: World, desk: Execute, ann: str) -> None:
    sign_in(desk, ann)
    world.sql(f'REVOKE finance FROM "{ann}"')
    assert session(desk) == []


def test_who_is_disabled_decides_nothing(world: World, desk: Execute, ann: str) -> None:
    """Neither at the pages nor by SQL; until they are enabled again."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    accounts.set_disabled(world.engine, ann, True)
    assert desk("SELECT disabled, may_try FROM prepaid.desk_account(:n)", n=ann) == [(True, False)]
    with pytest.raises(NotAllowed, match=f"{ann} is disabled: 'prepaid user enable {ann}'"):
        decisions.decide(world.engine, ann, [world.task(plan)], "approve", None)
    accounts.set_disabled(world.engine, ann, False)
    assert decisions.decide(world.engine, ann, [world.task(plan)], "approve", None) == 1
    with pytest.raises(UnknownThing, match="there is no person"):
        accounts.set_disabled(world.engine, "nobody of that name", True)


def test_the_pages_alone_read_and_decide_nothing(
    world: World, desk: Execute, ann: str, login: str
) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    task = world.task(plan)
    for statement in (
        "SELECT * FROM prepaid.tasks",
        "SELECT * FROM prepaid.desk_accounts",
        "SELECT * FROM prepaid.desk_sessions",
        "SELECT prepaid.set_password('x', 'y')",
        "SELECT prepaid.decide_tasks(ARRAY[1], 'approved')",
        "UPDATE prepaid.payment_verifications SET decision = 'approved'",
        "SELECT * FROM revenue.mrr",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            desk(statement)
    # A person's role it may take, and is then bound by their rights; a team's name is nobody's.
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {login}")
        connection.exec_driver_sql(f'SET LOCAL ROLE "{ann}"')
        decide = text("SELECT prepaid.decide_tasks(ARRAY[CAST(:t AS bigint)], 'approved')")
        assert connection.execute(decide, {"t": task}).scalar() == 1
    with world.engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {login}")
        connection.exec_driver_sql("SET LOCAL ROLE finance")
        with pytest.raises(DBAPIError, match="permission denied for schema prepaid"):
            connection.execute(decide, {"t": task})
        connection.rollback()
    assert world.rows("SELECT decided_by FROM prepaid.sign_offs") == [(ann,)]


def test_addresses(world: World, desk: Execute, person: Person) -> None:
    one, two = person(world, "finance"), person(world, "customer_success")
    accounts.add(world.engine, one, "finance", "Ann@Example.com")
    ask = "SELECT prepaid.desk_person('ann@example.COM')"
    assert desk(ask) == [(one,)]
    accounts.add(world.engine, two, "customer_success", "ann@example.com")
    assert desk(ask) == [(None,)]
    accounts.add(world.engine, two, "customer_success", "two@example.com")
    accounts.set_disabled(world.engine, one, True)
    assert desk(ask) == [(None,)]
    for bad in ("nobody", "a b@example.com", "x@", "a@b.c\nBcc: all@example.com"):
        with pytest.raises(NotAllowed, match="is not a valid email address"):
            accounts.add(world.engine, one, "finance", bad)


def test_people_from_before_there_were_pages(
    world: World, settings: Settings, ann: str, login: str
) -> None:
    world.sql("DELETE FROM prepaid.desk_accounts")
    world.sql(f'REVOKE "{ann}" FROM desk')
    installation.migrate(world.engine, settings)
    assert world.rows("SELECT person FROM prepaid.desk_accounts") == [(ann,)]
    assert world.sql("SELECT pg_has_role(:l, :n, 'MEMBER')", l=login, n=ann)
    assert not world.sql("SELECT pg_has_role(:l, :n, 'USAGE')", l=login, n=ann)
    assert not world.sql("SELECT pg_has_role(:l, 'finance', 'USAGE')", l=login)


def test_nobody_signs_for_somebody_else(world: World, ann: str) -> None:
    """Not the pipeline's own user, and not a person in another's name; also as a replica."""
    world.tax_rate("0.0725")
    world.due_renewal()
    world.open()
    sign = (
        "INSERT INTO prepaid.sign_offs (task_id, decision, decided_by)"
        " SELECT task_id, 'approved', :by FROM prepaid.tasks"
    )
    for mode in ("origin", "replica"):
        with world.engine.connect() as connection:
            connection.exec_driver_sql(f"SET LOCAL session_replication_role = {mode}")
            for by in (ann, "postgres", "finance"):
                with (
                    pytest.raises(DBAPIError, match="only somebody in finance can sign it"),
                    connection.begin_nested(),
                ):
                    connection.execute(text(sign), {"by": by})
            connection.rollback()
    with pytest.raises(DBAPIError, match="permission denied"):
        sql_as(world, ann, sign, by=ann)
