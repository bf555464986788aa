"""Everything about one plan, in order: how it came to be what it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.process.why import why


@dataclass(frozen=True)
class Story:
    """``plan``: the row with its invoice. ``events``: at, event, actor and what, oldest first.
    ``why``: why it has its status, in words. ``proof``: its audit entries against their seals.
    """

    plan: dict[str, Any]
    events: list[dict[str, Any]]
    why: str
    proof: seals.Proof


def find(engine: Engine, name: str) -> int:
    """The plan that is meant by its id or by an invoice number. Raises UnknownThing."""
    with engine.connect() as connection:
        found = (
            queries.statement("process/story", "find").execute(connection, {"name": name}).first()
        )
    if found is None:
        raise UnknownThing(f"there is no service plan {name}, and no invoice of that number")
    return int(found.service_plan_id)


def tell(engine: Engine, plan: int) -> Story:
    """The story of a plan: what it is, why, and its events in order."""
    with engine.connect() as connection:
        params = {"plan": plan}
        row = queries.statement("process/story", "plan").execute(connection, params).one()
        events = queries.statement("process/story", "events").execute(connection, params)
        facts = queries.statement("process/story", "why").execute(connection, params).one()
        done = queries.statement("process/story", "done").execute(connection, params).one_or_none()
        return Story(
            dict(row._mapping),
            [dict(event._mapping) for event in events],
            why(facts, done),
            seals.of_plan(connection, plan),
        )
