"""Late data: which closed months would have other figures today. Looking changes nothing.

All figures are computed once more, in a transaction that is rolled back, and compared with what is
published. So nothing is overlooked (an older term turns the "new" customer of a later month into
one who came back) and nothing is named that changes no figure. It costs what a backfill's SQL does.
"""

from dataclasses import dataclass
from datetime import date
from uuid import uuid4

from sqlalchemy import Connection, Engine, text

from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue.figures import Span, compute

_CHECK = "operations/invariants/16_closed_months_show_todays_truth"
_RUN = text("SELECT set_config('prepaid.run_id', :run_id, true)")


@dataclass(frozen=True)
class Changed:
    """Closed months in a row (their first days) whose figures have changed, and what to do."""

    first_month: date
    last_month: date
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def recompute(connection: Connection, as_of: date) -> None:
    """Stage the closed months again for their invariant, in the caller's transaction, which must be
    of one snapshot and be rolled back. Without closed months it does nothing.
    """
    params = {"as_of": as_of}
    closed = queries.statement("revenue/months", "closed_months")
    months = closed.execute(connection, params).one()
    run_id = f"late-{uuid4()}"
    connection.execute(_RUN, {"run_id": run_id})
    if months.first is not None:
        compute(connection, Span(months.first, months.last, as_of), run_id)


def changed_months(engine: Engine, as_of: date) -> list[Changed]:
    """The closed months whose figures have changed, earliest first."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        recompute(connection, as_of)
        found = queries.statement(_CHECK).execute(connection, {"as_of": as_of})
        return [Changed(row.first_month, row.last_month, row.finding) for row in found]
