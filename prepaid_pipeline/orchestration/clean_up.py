"""Deletes what nobody needs any more: old runs of Dagster, their events, ended sessions.

The process's own tables are not touched: the audit log permanently keeps what happened to a plan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from prepaid_pipeline.database import queries

# A run of ours has some 150 events: a portion is a transaction of a second.
PORTION = 200
_SQL = "operations/service/clean_up"


@dataclass
class CleanedUp:
    """Counts of what was deleted."""

    runs: int = 0
    events: int = 0
    backfills: int = 0
    sessions: int = 0


def clean_up(
    engine: Engine,
    before: datetime,
    forget: Callable[[str], None] = lambda _: None,
    portion: int = PORTION,
) -> CleanedUp:
    """Delete the runs that ended before a moment, but for those that made current figures.

    ``forget`` is called with each deleted run's id, for what is kept about it elsewhere. In
    portions: if it is interrupted, what is deleted is deleted whole, and the next run continues.
    """
    done = CleanedUp()
    asked = {"after": 0, "before": before, "limit": portion}
    while True:
        with engine.begin() as connection:
            found = queries.statement(_SQL, "old_runs").execute(connection, asked).one()
        if found.last is None:
            break
        for run_id in found.run_ids:
            forget(run_id)
        done.runs += len(found.run_ids)
        done.events += found.events
        asked["after"] = found.last
    with engine.begin() as connection:
        backfills = queries.statement(_SQL, "backfills").execute(connection, asked)
        done.backfills = backfills.scalar_one()
        done.sessions = queries.statement(_SQL, "sessions").execute(connection, asked).rowcount
    return done
