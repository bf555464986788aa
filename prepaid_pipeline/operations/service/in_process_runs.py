"""Runs of Dagster in the process of a command: who works on them, and the end of lost ones.

No code server knows of such a run. It has its worker as a tag, and the worker has a lease of
``prepaid.locks`` that ends with it: a run whose lease nobody has is lost, and marked as failed by
the next backfill, by ``prepaid up`` or by the daemon. Until then it would block its queue.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import MAX_RETRIES_TAG
from sqlalchemy import Engine

from prepaid_pipeline.database import leases
from prepaid_pipeline.operations.service.lock import this_process

WORKER_TAG = "prepaid/worker"
_LIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def tags() -> dict[str, str]:
    """The tags of a run of this process. The daemon could not start it again."""
    return {WORKER_TAG: this_process(), MAX_RETRIES_TAG: "0"}


@contextmanager
def working(engine: Engine, run_id: str) -> Iterator[None]:
    """Say that this process works on a run, from before it is created until the block ends."""
    with leases.held(engine, _lease(run_id), this_process()):
        yield


def close_lost(instance: DagsterInstance, engine: Engine) -> int:
    """Mark as failed the live runs of commands whose process is gone; how many."""
    closed = 0
    for run in instance.get_runs(RunsFilter(statuses=_LIVE)):
        if WORKER_TAG not in run.tags:
            continue
        lease = leases.Lease(engine, _lease(run.run_id), f"closing, {this_process()}")
        if lease.take():
            said = f"The command that worked on this run has ended ({run.tags[WORKER_TAG]})."
            instance.report_run_failed(run, said)
            lease.give_back()
            closed += 1
    leases.forget_old(engine)
    return closed


def _lease(run_id: str) -> str:
    return f"run {run_id}"
