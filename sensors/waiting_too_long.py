"""What waits too long -> an alert: batches that nobody takes up, tasks, emails."""

import json

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.mail import alerts
from prepaid_pipeline.orchestration.resources import Database


@dg.sensor(
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts about stuck batches, overdue tasks and unsent emails, once each.",
)
def waiting_too_long(context: dg.SensorEvaluationContext, database: Database) -> dg.SkipReason:
    """Asks for no run: the other sensors do. The cursor has what was told and still lasts; what is
    over and comes again is told again.
    """
    settings = database.settings()
    asked = {
        "today": settings.today(),
        "escalate_days": settings.escalate_days,
        "unsent_hours": settings.unsent_hours,
    }
    with database.engine().connect() as connection:
        look = queries.statement("sensors/waiting_too_long", "matters")
        found = {row.matter: row.text for row in look.execute(connection, asked)}
    told = set(json.loads(context.cursor or "[]"))
    if news := [text for matter, text in found.items() if matter not in told]:
        context.log.error("; ".join(news))
        alerts.tell(
            settings,
            "Something waits too long",
            "".join(f"{text}\n" for text in news)
            + "\nNothing is lost by waiting. You are alerted again if it is resolved and comes"
            " back.\n",
        )
    context.update_cursor(json.dumps(sorted(found)))
    return dg.SkipReason("; ".join(found.values()) or "nothing waits too long")
