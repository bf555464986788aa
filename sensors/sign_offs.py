"""Human sign-offs -> settle_renewals and close_quality_checks."""

from collections.abc import Iterator

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration import leases
from prepaid_pipeline.orchestration.renewal_jobs import close_quality_checks, settle_renewals
from prepaid_pipeline.orchestration.resources import Database
from sensors.queues import LOOK_LIMIT, ask_for_run


@dg.sensor(
    jobs=[settle_renewals, close_quality_checks],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Approved payments whose record is matched, and decided quality checks.",
)
def sign_offs(
    context: dg.SensorEvaluationContext, database: Database
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Asks for a run of either job when there is something for it."""
    looks = (
        (settle_renewals, "ready_to_settle", "plans ready to settle"),
        (close_quality_checks, "quality_decided", "decided quality checks"),
    )
    with database.engine().connect() as connection:
        found = {
            part: queries.statement("sensors/sign_offs", part)
            .execute(connection, {"limit": LOOK_LIMIT})
            .first()
            is not None
            for _, part, _ in looks
        }
    if leases.of_ended_runs(context.instance, database.engine(), settle_renewals.name):
        found["ready_to_settle"] = True  # a run has ended before its plans were settled
    answers = [ask_for_run(context, job, found[part], what) for job, part, what in looks]
    requests = [answer for answer in answers if isinstance(answer, dg.RunRequest)]
    reasons = [answer.skip_message for answer in answers if isinstance(answer, dg.SkipReason)]
    # Dagster takes run requests or one skip reason from a tick, not both.
    if requests:
        yield from requests
    else:
        yield dg.SkipReason("; ".join(filter(None, reasons)))
