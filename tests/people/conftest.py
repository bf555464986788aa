"""People of every team, with names of the test's own: roles belong to the whole server."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from prepaid_pipeline.database.connections import acting_as
from prepaid_pipeline.people import accounts
from tests.world import World

As = Callable[..., Any]


@pytest.fixture(scope="session")
def person() -> Callable[[World, str], str]:
    """A new person of a team; the name begins with the team's."""

    def person(world: World, team: str) -> str:
        name = f"{team}_{uuid.uuid4().hex[:12]}"
        accounts.add(world.engine, name, team)
        return name

    return person


def sql_as(world: World, name: str, statement: str, **params: Any) -> list[tuple[Any, ...]] | int:
    """Execute under a person's role: the rows, or how many rows were changed."""
    with acting_as(world.engine, name) as connection:
        result = connection.execute(text(statement), params)
        return [tuple(row) for row in result] if result.returns_rows else result.rowcount


@contextmanager
def logged_in_as(world: World, name: str) -> Iterator[Callable[..., Any]]:
    """A session of the person's own, as if they had logged in (no role is set)."""
    with world.engine.begin() as connection:
        quoted = connection.dialect.identifier_preparer.quote_identifier(name)
        connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {quoted}")
        yield lambda statement, **params: connection.execute(text(statement), params)


@pytest.fixture
def limited(world: World) -> World:
    """A world in which every payment of more than 10 USD needs two people (a plan costs 10.73)."""
    world.tax_rate("0.0725")
    world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 10)")
    return world
