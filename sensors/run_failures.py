"""Failed runs -> an alert that says what failed and what happens next."""

import dagster as dg

from prepaid_pipeline.email.alert import send_alert
from prepaid_pipeline.resources import Database


@dg.run_failure_sensor(
    name="run_failures",
    monitor_all_code_locations=False,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs each failed run and mails it to PREPAID_ALERT_TO when that is set.",
)
def run_failures(context: dg.RunFailureSensorContext, database: Database) -> None:
    """Nothing is lost by a failed run: every step does what is missing when it is asked again."""
    run = context.dagster_run
    causes = [event.step_failure_data.error for event in context.get_step_failure_events()]
    said = [(error.cause or error).message.strip() for error in causes if error is not None]
    error = " ".join([context.failure_event.message or "no message", *said])
    context.log.error(f"{run.job_name} failed (run {run.run_id}): {error}")
    send_alert(
        database.settings(),
        subject=f"Run of {run.job_name} failed",
        body=(
            f"Job: {run.job_name}\nRun: {run.run_id}\nError: {error}\n\n"
            "No plan is lost: what the run had not finished is taken up by the next one. The sensor"
            " asks for it after a pause that doubles with each failure, at most an hour.\n"
        ),
    )
