"""What would open on a business date, with totals, changing nothing."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.context import Context
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
    unlimited = 2**31 - 1
    params = context.parameters() | {"limit": unlimited, "first": 0, "last": 2**63 - 1}
    with engine.connect() as connection:
        opening, *steps = _UP_TO_THE_TOTAL
        queries.run(connection, opening, params)
        waiting = queries.statement("process/due", "waiting").execute(connection, params)
        params["plans"] = list(waiting.scalars())
        for step in steps:
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
