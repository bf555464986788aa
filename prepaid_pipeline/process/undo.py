"""The way back from a wrong business date: what was done for a day that has not come."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Engine

from prepaid_pipeline.billing.payment_matching import one_at_a_time
from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import NotAllowed
from prepaid_pipeline.process import window
from prepaid_pipeline.settings.load import Settings

_SQL = "process/undo"


@dataclass(frozen=True)
class Undone:
    """What was taken back, and what could not be.

    ``active_again`` and ``waiting_again`` are numbers of plans; the latter get new invoices.
    ``left``: ids of plans that stay cancelled. ``told``: emails that have left with what is not
    true, each with template, invoice_number, recipient and status.
    """

    active_again: int
    waiting_again: int
    mails_dropped: int
    left: list[int] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)


def undo(engine: Engine, settings: Settings, day: date) -> Undone:
    """Take back, in one transaction, what was done for ``day``, which has not come.

    Terms that expired and have not ended are Active again. Plans that were cancelled because nobody
    paid wait for a new invoice. Emails that have not left are dropped. Raises NotAllowed for a day
    that is not after today.
    """
    today = window.look(engine, settings).today
    if day <= today:
        raise NotAllowed(
            f"{day} is not after today, {today}: what was done for it was done on or after its day"
        )
    asked: dict[str, Any] = {"day": day, "today": today}

    with transaction(engine, Context.of(settings, today, actor="prepaid undo")) as connection:
        one_at_a_time(connection)

        def run(part: str) -> Any:
            return queries.statement(_SQL, part).execute(connection, asked)

        cancelled = run("cancelled").all()
        asked["plans"] = [row.service_plan_id for row in cancelled if row.again]
        run("forget_charges")
        waiting = run("wait_again").rowcount
        run("queue")
        active = run("expired").rowcount
        asked["plans"] = [row.service_plan_id for row in cancelled]
        dropped = run("drop_mails").rowcount
        told = [dict(row._mapping) for row in run("told")]
    left = [row.service_plan_id for row in cancelled if not row.again]
    return Undone(active, waiting, dropped, left, told)
