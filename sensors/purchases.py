"""New purchases, orders and released plans -> open_renewals."""

import dagster as dg

from prepaid_pipeline.context import Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration import leases
from prepaid_pipeline.orchestration.renewal_jobs import open_renewals
from prepaid_pipeline.orchestration.resources import Database
from sensors.queues import LOOK_LIMIT, ask_for_run


@dg.sensor(
    job=open_renewals,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="New purchases, orders of returning customers and plans released from a hold.",
)
def purchases(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Asks for a run when a purchase, an order or a released plan waits for steps 0-5, or when a
    run has ended before its plans were through them.
    """
    params = Context.of(database.settings()).parameters() | {"limit": LOOK_LIMIT}
    with database.engine().connect() as connection:
        found = queries.statement("sensors/purchases").execute(connection, params).first()
    left = leases.of_ended_runs(context.instance, database.engine(), open_renewals.name)
    return ask_for_run(context, open_renewals, bool(found or left), "purchases")
