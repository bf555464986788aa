"""What would open on a business date, with totals, changing nothing."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from prepaid_pipeline.context import UNLIMITED, Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.process.steps import STEPS

_UP_TO_THE_TOTAL = (
    "steps/00_open_service_plans",
    STEPS["retrieve_subscription_details"],
    STEPS["mark_plans_processing"],
    STEPS["calculate_invoice_totals"],
)


@dataclass(frozen=True)
class Due:
    """``totals``: per currency and kind, plans, net, tax and total. ``held``: per reason."""

    totals: list[dict[str, Any]]
    held: list[dict[str, Any]]


def due(engine: Engine, context: Context) -> Due:
    """Run steps 0-3 in one transaction, read the figures, roll back."""
    params = _everything(context)
    with engine.connect() as connection:
        params["plans"] = _waiting(connection, params)
        for step in _UP_TO_THE_TOTAL[1:]:
            queries.run(connection, step, params)
        figures = {
            part: [
                dict(row._mapping)
                for row in queries.statement("process/due", part).execute(connection, params)
            ]
            for part in ("totals", "held")
        }
        connection.rollback()
    return Due(**figures)


def waiting(engine: Engine, context: Context) -> int:
    """How many plans would be opened or are open and would be invoiced; changes nothing."""
    with engine.connect() as connection:
        found = len(_waiting(connection, _everything(context)))
        connection.rollback()
    return found


def _everything(context: Context) -> dict[str, Any]:
    return context.parameters() | {"limit": UNLIMITED, "first": 0, "last": 2**63 - 1}


def _waiting(connection: Connection, params: dict[str, Any]) -> list[int]:
    """Opens what is due in the connection's transaction; the plans that wait for their invoice."""
    queries.run(connection, _UP_TO_THE_TOTAL[0], params)
    found = queries.statement("process/due", "waiting").execute(connection, params)
    return list(found.scalars())
