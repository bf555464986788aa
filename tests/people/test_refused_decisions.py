"""What is no decision, and who is no person: refused, and nothing is written."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.people import decisions
from tests.people.conftest import sql_as
from tests.people.test_decisions import DECIDE, STATE
from tests.world import World


@pytest.fixture(scope="module")
def world(module_world: World) -> World:
    module_world.tax_rate("0.0725")
    module_world.due_renewal()
    module_world.open()
    return module_world


@pytest.fixture(scope="module")
def plan(world: World) -> int:
    """One plan whose payment waits for a decision."""
    return world.plans()[0]


@pytest.fixture(scope="module")
def officer(world: World, person: Callable[[World, str], str]) -> str:
    return person(world, "finance")


@pytest.mark.parametrize(
    ("decision", "note", "refusal"),
    [
        ("Approved", None, "the decision must be approved or rejected, not 'Approved'"),
        ("passed", None, "the decision must be approved or rejected, not 'passed'"),
        ("", None, "the decision must be approved or rejected, not ''"),
        (None, "no word", "the decision must be approved or rejected, not empty"),
        ("rejected", None, "rejected needs a note that says why"),
        ("rejected", " \t", "rejected needs a note that says why"),
    ],
)
def test_what_is_no_decision(
    world: World, plan: int, officer: str, decision: str | None, note: str | None, refusal: str
) -> None:
    task = world.task(plan)
    with pytest.raises(DBAPIError, match=f"task {task} cannot be decided: {refusal}"):
        sql_as(world, officer, DECIDE, t=task, d=decision, n=note)
    assert world.rows(STATE, t=task) == [("Open", None, None, None)]
    assert world.sql("SELECT count(*) FROM prepaid.sign_offs") == 0


@pytest.mark.parametrize(
    "name", ["postgres", "none", "finance", "nobody_of_that_name", "", "x" * 64]
)
def test_only_a_person_decides(world: World, plan: int, name: str) -> None:
    """Not a team, not the database's owner, and no role is not a person either."""
    task = world.task(plan)
    with pytest.raises(UnknownThing, match="there is no person"):
        decisions.decide(world.engine, name, [task], "approve", None)
    with pytest.raises(UnknownThing, match="there is no person"):
        decisions.release(world.engine, name, plan, "done")
    assert world.rows(STATE, t=task) == [("Open", None, None, None)]
