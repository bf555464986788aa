"""prepaid user add: which names can be people."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.engine import Engine

from prepaid_pipeline.database import connections
from prepaid_pipeline.errors import NotAllowed, UnknownThing
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.teams import TEAMS
from tests.people.conftest import sql_as
from tests.world import World


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    return module_world


def teams(world: World, name: str) -> list[str]:
    return [
        row[0]
        for row in world.rows(
            "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
            " JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = :name ORDER BY 1",
            name=name,
        )
    ]


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        *((team, "it is reserved") for team in TEAMS),
        ("none", "it is reserved"),
        ("public", "it is reserved"),
        ("pg_monitor", "it is reserved"),
        ("", "it is reserved"),
        ("   ", "blank at an end, or not printable"),
        ("anna ", "blank at an end, or not printable"),
        ("anna\n", "blank at an end, or not printable"),
        ("an\0na", "blank at an end, or not printable"),
        ("a" * 64, "at most 63 bytes"),
        ("ä" * 32, "at most 63 bytes"),
        ("postgres", "is a database superuser"),
    ],
)
def test_refused(world: World, name: str, refusal: str) -> None:
    known = (name,) in world.rows("SELECT rolname FROM pg_roles")
    entries = world.sql("SELECT count(*) FROM prepaid.audit_log")
    with pytest.raises(NotAllowed, match=refusal):
        accounts.add(world.engine, name, "finance")
    # The server's other databases may get new roles at this moment: only this one counts.
    assert ((name,) in world.rows("SELECT rolname FROM pg_roles")) is known
    assert world.sql("SELECT count(*) FROM prepaid.audit_log") == entries


@pytest.mark.parametrize(
    "name",
    [
        "Anna Example",
        "o'brien",
        'the "boss"',
        'x"; DROP TABLE prepaid.tasks; --',
        "50% off %s %(name)s :name",
        "back\\slash",
        "María Ñandú 佐藤",
        "None",
        "select",
        "current_user",
        "anna.example@example.com",
        "ä" * 31,
    ],
)
def test_odd_names_are_names(world: World, name: str) -> None:
    assert accounts.add(world.engine, name, "finance") is True
    assert teams(world, name) == ["finance"]
    assert sql_as(world, name, "SELECT prepaid.acting_person()") == [(name,)]
    assert world.rows(
        "SELECT event, after, actor FROM prepaid.audit_log WHERE detail = :name", name=name
    ) == [("user_added", "finance", "prepaid user add")]


def test_again_changes_nothing(world: World) -> None:
    name = f"again_{uuid.uuid4().hex[:8]}"
    assert accounts.add(world.engine, name, "finance") is True
    assert accounts.add(world.engine, name, "finance") is False
    assert world.sql("SELECT count(*) FROM prepaid.audit_log WHERE detail = :n", n=name) == 1
    assert world.rows(
        "SELECT rolcanlogin, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = :n", n=name
    ) == [(False, False, False)]


def test_two_teams(world: World) -> None:
    name = f"both_{uuid.uuid4().hex[:8]}"
    accounts.add(world.engine, name, "finance")
    assert accounts.add(world.engine, name, "customer_success") is True
    assert teams(world, name) == ["customer_success", "finance"]
    assert sql_as(world, name, "SELECT 1 FROM prepaid.payment_verifications") == []
    assert sql_as(world, name, "SELECT 1 FROM prepaid.quality_checks") == []


@pytest.fixture
def owner(cluster: URL, database_url: URL) -> Iterator[Engine]:
    """The usual case beside a server of one's own: a user that may make roles, and no more."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    admin = connections.engine_for(cluster)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'secret'"))
        for team in TEAMS:
            connection.execute(text(f"GRANT {team} TO {name} WITH ADMIN OPTION, INHERIT FALSE"))
    as_admin = connections.engine_for(database_url)
    with as_admin.begin() as connection:
        connection.execute(
            text(f"GRANT ALL ON SCHEMA prepaid, revenue TO {name} WITH GRANT OPTION")
        )
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA prepaid TO {name}"))
        connection.execute(text(f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA prepaid TO {name}"))
    as_admin.dispose()
    engine = connections.engine_for(make_url(database_url).set(username=name, password="secret"))
    yield engine
    engine.dispose()
    admin.dispose()


def test_by_a_user_that_is_no_superuser(owner: Engine, database_url: URL) -> None:
    world = World(connections.engine_for(database_url))
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    name = f"clerk_{uuid.uuid4().hex[:8]}"
    assert accounts.add(owner, name, "finance") is True
    assert accounts.add(owner, name, "finance") is False
    assert decisions.decide(owner, name, [world.task(plan)], "approve", None) == 1
    assert world.rows("SELECT decided_by FROM prepaid.tasks") == [(name,)]
    # The pipeline's own user is nobody's colleague.
    with pytest.raises(NotAllowed, match="is the pipeline's own user"):
        accounts.add(owner, owner.url.username or "", "finance")
    with pytest.raises(UnknownThing, match="there is no person"):
        decisions.decide(owner, owner.url.username or "", [world.task(plan)], "approve", "again")
    world.engine.dispose()


def test_by_a_user_that_may_not_make_roles(owner: Engine, database_url: URL) -> None:
    admin = connections.engine_for(database_url)
    with admin.begin() as connection:
        connection.execute(text(f"ALTER ROLE {owner.url.username} NOCREATEROLE"))
    admin.dispose()
    with pytest.raises(NotAllowed, match="permission denied to create role"):
        accounts.add(owner, f"never_{uuid.uuid4().hex[:8]}", "finance")
