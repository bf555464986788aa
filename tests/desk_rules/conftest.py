"""The people of tests/people, and payments above a limit."""

import pytest

from tests.people.conftest import person
from tests.world import World

__all__ = ["person"]


@pytest.fixture
def limited(world: World) -> World:
    """A world in which every payment of more than 10 USD needs two people (a plan costs 10.73)."""
    world.tax_rate("0.0725")
    world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 10)")
    return world
