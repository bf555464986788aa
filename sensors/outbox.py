"""Mails in the outbox -> send_emails."""

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration.renewal_jobs import send_emails
from prepaid_pipeline.orchestration.resources import Database
from sensors.queues import LOOK_LIMIT, ask_for_run


@dg.sensor(
    job=send_emails,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Emails that can be sent now.",
)
def outbox(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Asks for a run when a mail is due."""
    with database.engine().connect() as connection:
        looked = queries.statement("sensors/outbox")
        found = looked.execute(connection, {"limit": LOOK_LIMIT}).first()
    return ask_for_run(context, send_emails, found is not None, "mails")
