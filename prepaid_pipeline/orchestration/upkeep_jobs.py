"""The jobs that look after the installation. What the process does is in ``renewal_jobs.py``."""

from dataclasses import asdict
from datetime import datetime, time, timedelta

import dagster as dg

from prepaid_pipeline.orchestration import clean_up as cleaning
from prepaid_pipeline.orchestration.ops import BusinessDate
from prepaid_pipeline.orchestration.renewal_jobs import queued
from prepaid_pipeline.orchestration.resources import Database


@dg.op(
    description="Deletes old ended runs with their events, and sessions that are long over.",
    tags={"dagster/kind": "sql"},
)
def delete_old_runs(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """Runs that ended PREPAID_KEEP_RUNS_DAYS before the business date, never a live one."""
    settings = database.settings()
    day = config.context(context, database).as_of
    kept_from = day - timedelta(days=settings.keep_runs_days)
    before = datetime.combine(kept_from, time(), settings.timezone)

    def forget(run_id: str) -> None:
        context.instance.compute_log_manager.delete_logs(prefix=[run_id])

    done = cleaning.clean_up(database.engine(), before, forget)
    return dg.Output(None, metadata=asdict(done))


@dg.graph
def clean_up_graph() -> None:
    """Deletes what Dagster keeps of old runs, except those that made a month's figures."""
    delete_old_runs()


clean_up = queued("clean_up", clean_up_graph)

UPKEEP_JOBS = (clean_up,)
