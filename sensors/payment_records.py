"""Payment records without an outcome -> match_payments."""

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration.renewal_jobs import match_payments
from prepaid_pipeline.orchestration.resources import Database
from sensors.queues import LOOK_LIMIT, ask_for_run


@dg.sensor(
    job=match_payments,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Payment records that a provider has delivered and that have no outcome yet.",
)
def payment_records(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Asks for a run when a record has no outcome."""
    with database.engine().connect() as connection:
        looked = queries.statement("sensors/payment_records")
        found = looked.execute(connection, {"limit": LOOK_LIMIT}).first()
    return ask_for_run(context, match_payments, found is not None, "payment records")
