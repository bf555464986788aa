"""Installations whose user is no superuser, several on one server, and people with logins."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from prepaid_pipeline.database import connections
from prepaid_pipeline.operations import installation
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.settings.load import load
from prepaid_pipeline.teams import TEAMS
from tests.world import World, context


@dataclass(frozen=True)
class Place:
    """A database of an installation: as its owner (no superuser), and as the administrator."""

    world: World
    admin: World
    url: URL

    def person(self, team: str) -> str:
        name = f"{team}_{uuid.uuid4().hex[:8]}"
        accounts.add(self.world.engine, name, team)
        return name

    def login(self, name: str) -> None:
        """As docs/operate.md has it: the administrator lets a person log in by themselves."""
        self.admin.sql(f'ALTER ROLE "{name}" LOGIN')

    @contextmanager
    def session(self, login: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        """A session of a login, each statement its own transaction."""
        address = self.url.set(username=login).render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:

            def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
                done = connection.execute(statement, params)
                return done.fetchall() if done.description else []

            yield run


@contextmanager
def place(server: URL) -> Iterator[Place]:
    """A new installation on a server on which there may be others, as docs/operate.md has it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    owner = f"owner_{name}"
    maintenance = server.render_as_string(hide_password=False)
    with psycopg.connect(maintenance, autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE")
        administrator.execute(f"CREATE DATABASE {name} OWNER {owner}")
        for team in (*TEAMS, "desk"):
            known = administrator.execute("SELECT FROM pg_roles WHERE rolname = %s", (team,))
            if known.fetchone() is not None:
                administrator.execute(
                    sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(
                        sql.Identifier(team), sql.Identifier(owner)
                    )
                )
        url = server.set(database=name, username=owner)
        engine = connections.engine_for(url)
        admin = connections.engine_for(server.set(database=name))
        try:
            settings = load({"PREPAID_HOME": "x"})
            assert installation.migrate(engine, settings) == []
            yield Place(World(engine), World(admin), url)
        finally:
            engine.dispose()
            admin.dispose()
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def invoiced(here: Place, today: date) -> int:
    """A new plan that waits for its payment."""
    here.world.due_renewal(ends_on=today)
    return here.world.open(context(today))[-1]


def paid(here: Place, today: date) -> int:
    """Its payment has come as well, and finance has to look."""
    plan = invoiced(here, today)
    moment = f"{today}T00:00Z"
    here.world.record(here.world.invoice(plan), occurred_at=moment, provider_ref=uuid.uuid4().hex)
    here.world.match(context(today))
    return plan


def active(here: Place, today: date) -> int:
    plan = paid(here, today)
    officer = here.person("finance")
    decisions.decide(here.world.engine, officer, [here.world.task(plan)], "approve", "seen", today)
    here.world.settle(context(today))
    assert here.world.status(plan) == "Active"
    return plan


def subscription(here: Place, plan: int) -> int:
    found = here.world.sql(
        "SELECT subscription_id FROM prepaid.service_plans WHERE service_plan_id = :p", p=plan
    )
    assert isinstance(found, int)
    return found
