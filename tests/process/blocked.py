"""A database whose owner is no superuser, and people of it with logins of their own."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections, migrations
from prepaid_pipeline.people import accounts
from prepaid_pipeline.process.drain import Drained, drain
from prepaid_pipeline.settings.load import Settings, load
from prepaid_pipeline.teams import TEAMS
from tests.people.test_races import waiting
from tests.world import World, context

# All that could end the session of a person who has fallen asleep.
_TIMEOUTS: tuple[LiteralString, ...] = (
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET idle_session_timeout = 0",
)


class Owned:
    """A migrated database; the pipeline's engine and settings are its owner's. ``admin`` is the
    server's URL for its superuser.
    """

    def __init__(self, url: URL, home: Path, admin: str) -> None:
        self.url, self.admin = url, admin
        self._home = home
        self._engines: list[Engine] = []
        self.engine = self.pipeline(60)
        self.world = World(self.engine)

    def settings(self, blocked_seconds: int) -> Settings:
        return load(
            {
                "PREPAID_HOME": str(self._home),
                "PREPAID_DATABASE_URL": self.url.render_as_string(hide_password=False),
                "PREPAID_BLOCKED_SECONDS": str(blocked_seconds),
            }
        )

    def pipeline(self, blocked_seconds: int) -> Engine:
        """A process of the pipeline with this setting."""
        self._engines.append(connections.engine(self.settings(blocked_seconds)))
        return self._engines[-1]

    def drain(self, blocked_seconds: int) -> Drained:
        """As the command does, in a process of its own."""
        engine = self.pipeline(blocked_seconds)
        try:
            return drain(engine, self.settings(blocked_seconds), context())
        finally:
            engine.dispose()

    def ready(self, plans: int) -> list[int]:
        """Plans that are paid and approved, to be settled next."""
        opened = waiting(self.world, plans)
        approver = f"approver_{uuid.uuid4().hex[:8]}"
        tasks = [self.world.task(plan) for plan in opened]
        accounts.add(self.engine, approver, "finance")
        with connections.acting_as(self.engine, approver) as connection:
            decide = text("SELECT prepaid.decide_tasks(:tasks, 'approved')")
            connection.execute(decide, {"tasks": tasks})
        return opened

    def log_in(self, name: str) -> psycopg.Connection[Any]:
        """A session of a role, with all timeouts off."""
        url = self.url.set(username=name).render_as_string(hide_password=False)
        session = psycopg.connect(url)
        for timeout in _TIMEOUTS:
            session.execute(timeout)
        session.commit()
        return session

    @contextmanager
    def person(self, team: str) -> Iterator[psycopg.Connection[Any]]:
        """A session that somebody of a team has logged in to."""
        name = f"{team[:10]}_{uuid.uuid4().hex[:8]}"
        accounts.add(self.engine, name, team)
        with self.engine.begin() as connection:
            connection.execute(text(f'ALTER ROLE "{name}" LOGIN'))
        with self.log_in(name) as session:
            yield session

    def close(self) -> None:
        for engine in self._engines:
            engine.dispose()


def is_ended(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


@contextmanager
def owned(server: URL, home: Path) -> Iterator[Owned]:
    """A database of its own on a server on which we are the superuser."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    owner = sql.Identifier(name)
    admin = server.render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(owner))
        known = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"
        for (team,) in connection.execute(known, [[*TEAMS, "desk"]]).fetchall():
            grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION")
            connection.execute(grant.format(sql.Identifier(team), owner))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(owner, owner))
        there = Owned(server.set(database=name, username=name), home, admin)
        try:
            migrations.upgrade(there.engine)
            there.world.tax_rate("0.0725")
            yield there
        finally:
            there.close()
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(owner))
