"""Failed runs -> an alert that says what failed and what happens next."""

from datetime import UTC, datetime

import dagster as dg

from prepaid_pipeline.mail import alerts
from prepaid_pipeline.orchestration.resources import Database

# A row of failures is not longer than that between two looks of a day: at most 24 a day.
_LOOKED_AT = 100


@dg.run_failure_sensor(
    name="run_failures",
    monitor_all_code_locations=False,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs each failed run; alerts at the first in a row, and then once a day.",
)
def run_failures(context: dg.RunFailureSensorContext, database: Database) -> None:
    """Nothing is lost by a failed run: every step does what is missing when it is asked again."""
    run = context.dagster_run
    causes = [event.step_failure_data.error for event in context.get_step_failure_events()]
    said = [(error.cause or error).message.strip() for error in causes if error is not None]
    error = " ".join([context.failure_event.message or "no message", *said])
    context.log.error(f"{run.job_name} failed (run {run.run_id}): {error}")
    if not _is_news(context):
        return
    alerts.tell(
        database.settings(),
        subject=f"Run of {run.job_name} failed",
        body=(
            f"Job: {run.job_name}\nRun: {run.run_id}\nError: {error}\n\n"
            "No plan is lost: the next run finishes what this one did not. The sensor requests it"
            " after a pause that doubles with each failure, up to an hour.\n"
        ),
    )


def _is_news(context: dg.RunFailureSensorContext) -> bool:
    """The first failure of a job after a success, and the first of each 24 hours from then on: a
    sensor asks for another run after each failure, 24 times a day.
    """
    run = context.dagster_run
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = context.instance.get_run_records(
        dg.RunsFilter(job_name=run.job_name, statuses=ended), limit=_LOOKED_AT
    )
    own = next((n for n, r in enumerate(records) if r.dagster_run.run_id == run.run_id), None)
    if own is None:
        return True  # many others have ended since
    row = list[datetime]()
    for record in records[own:]:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        row.append(datetime.fromtimestamp(record.end_time or 0, UTC))
    days = [(at - row[-1]).days for at in row]
    return len(row) == 1 or days[0] > days[1]
