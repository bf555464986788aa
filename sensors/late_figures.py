"""Figures that are late -> an alert: the current month not computed, a past one not closed."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from prepaid_pipeline.database import queries
from prepaid_pipeline.mail import alerts
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import due_months
from prepaid_pipeline.revenue.rules import CLOSE_DAYS, FIGURES_HOURS
from prepaid_pipeline.settings.load import Settings


@dg.sensor(
    name="late_figures",
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs monthly figures that are late and alerts about them, once each.",
)
def late_figures(context: dg.SensorEvaluationContext, database: Database) -> dg.SkipReason:
    """Asks for no run: the schedules do, and their failures have an alert of their own. This one
    also speaks when a schedule is switched off or waits behind another run.
    """
    settings = database.settings()
    late = _late(database, settings, settings.today(), datetime.now(UTC))
    told = set(json.loads(context.cursor or "[]"))
    if news := [sentence for sentence in late if sentence not in told]:
        context.log.error("; ".join(news))
        alerts.tell(
            settings,
            subject="Monthly figures are late",
            body="".join(f"{sentence}\n" for sentence in news)
            + "\nWhat is published stays as it is. In Dagster: are the schedules running, and does"
            " a run of materialise_mrr or close_month fail or wait?\n",
        )
    # What is in time again may be late again.
    context.update_cursor(json.dumps(late))
    return dg.SkipReason("; ".join(late) or "all figures are on time")


def _late(database: Database, settings: Settings, today: date, now: datetime) -> list[str]:
    running = {
        "month": today.replace(day=1),
        "computed_after": now - timedelta(hours=FIGURES_HOURS),
    }
    with database.engine().connect() as connection:
        statement = queries.statement("sensors/late_figures", "open_months")
        late = list(statement.execute(connection, running).scalars())
    overdue = due_months(database.engine(), settings, today - timedelta(days=CLOSE_DAYS))
    return late + [f"{month:%Y-%m} should be closed and is not" for month in overdue]
