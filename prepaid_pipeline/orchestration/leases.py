"""Leases of runs that have ended: Dagster knows that they have, long before the lease is over."""

from dagster import DagsterInstance
from sqlalchemy import Engine

from prepaid_pipeline.database import queries


def of_ended_runs(instance: DagsterInstance, engine: Engine, queue: str) -> list[str]:
    """The ended runs that still have a lease on plans of ``queue``. Only reads."""
    with engine.connect() as connection:
        holders = queries.statement("process/batches/leases", "holders")
        run_ids = list(holders.execute(connection, {"queue": queue}).scalars())
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in run_ids}
    return [run_id for run_id, run in runs.items() if run is None or run.is_finished]


def end(instance: DagsterInstance, engine: Engine, queue: str) -> int:
    """End the leases of ended runs, so that their plans can be claimed; how many batches."""
    if not (runs := of_ended_runs(instance, engine, queue)):
        return 0
    with engine.begin() as connection:
        statement = queries.statement("process/batches/leases", "end")
        return statement.execute(connection, {"queue": queue, "runs": runs}).rowcount
