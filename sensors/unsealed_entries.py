"""Audit entries that no batch has sealed -> seal_audit_log."""

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration.audit_jobs import seal_audit_log
from prepaid_pipeline.orchestration.resources import Database
from sensors.queues import LOOK_LIMIT, ask_for_run


@dg.sensor(
    job=seal_audit_log,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Entries that wait for their seal for 5 minutes: jobs seal their own at once.",
)
def unsealed_entries(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Asks for a run of seal_audit_log when there is something for it."""
    with database.engine().connect() as connection:
        look = queries.statement("sensors/unsealed_entries")
        waiting = look.execute(connection, {"limit": LOOK_LIMIT}).first() is not None
    return ask_for_run(context, seal_audit_log, waiting, "unsealed audit entries")
