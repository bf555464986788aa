"""When a sensor may ask for a run: at most one live run per queue, and back-off after failures."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from prepaid_pipeline.orchestration.renewal_jobs import QUEUE_TAG

LIVE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
# 2, 4, 8 … 60 minutes: six failures in a row reach the longest wait.
LONGEST_WAIT = timedelta(minutes=60)
FAILURES_LOOKED_AT = 6
# A sensor only needs to know whether there is work; the run finds all of it.
LOOK_LIMIT = 1


def ask_for_run(
    context: dg.SensorEvaluationContext, job: dg.JobDefinition, waiting: bool, what: str
) -> dg.RunRequest | dg.SkipReason:
    """A run of ``job`` if ``waiting`` and the queue is free. No run_key: Dagster would keep it
    even for a run that failed, and the work would never be asked for again.
    """
    if not waiting:
        return dg.SkipReason(f"no {what}")
    live = context.instance.get_runs(
        dg.RunsFilter(tags={QUEUE_TAG: job.name}, statuses=list(LIVE)), limit=1
    )
    if live:
        return dg.SkipReason(f"{what} waiting; run {live[0].run_id} of {job.name} is in progress")
    if (until := _back_off_until(context.instance, job.name)) is not None:
        return dg.SkipReason(
            f"{what} waiting; {job.name} has failed, next attempt at {until:%H:%M:%S} UTC"
        )
    return dg.RunRequest(job_name=job.name)


def _back_off_until(instance: dg.DagsterInstance, queue: str) -> datetime | None:
    records = instance.get_run_records(
        dg.RunsFilter(tags={QUEUE_TAG: queue}, statuses=list(ENDED)), limit=FAILURES_LOOKED_AT
    )
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if failures == 0:
        return None
    ended = datetime.fromtimestamp(records[0].end_time or 0, UTC)
    until = ended + min(timedelta(minutes=2**failures), LONGEST_WAIT)
    return until if until > datetime.now(UTC) else None
