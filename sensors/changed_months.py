"""Closed months that have changed -> runs that make a new version of each."""

from collections.abc import Iterator

import dagster as dg

from prepaid_pipeline.orchestration.partitions import month_of
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import (
    CHANGED_RANGES,
    materialise_mrr,
    notice_late_data,
    range_tags,
    run_config,
)


# Switched off until somebody wants it: a new version of a closed report is news to whoever has read
# the old one. Until then the check names the months, and a backfill of them does the same.
@dg.run_status_sensor(
    name="changed_months",
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[notice_late_data],
    request_job=materialise_mrr,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="When switched on: closed months that notice_late_data has named are computed"
    " again as new versions, one run per range.",
)
def changed_months(
    context: dg.RunStatusSensorContext, database: Database
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run per range of months that the finished run has named."""
    run_id = context.dagster_run.run_id
    ranges = _changed_ranges(context.instance, run_id)
    config = run_config(database.settings().today())
    for first, last in ranges:
        tags = range_tags(month_of(first), month_of(last))
        yield dg.RunRequest(run_key=f"{run_id} {first}", tags=tags, run_config=config)
    if not ranges:
        yield dg.SkipReason("no closed month has changed")


def _changed_ranges(instance: dg.DagsterInstance, run_id: str) -> list[list[str]]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        if entry.dagster_event is not None:
            metadata = entry.dagster_event.asset_check_evaluation_data.metadata
            if found := metadata.get(CHANGED_RANGES):
                ranges: list[list[str]] = found.value  # type: ignore[assignment]
                return ranges
    return []
