"""The revenue jobs and their schedules: the current month every hour, the close of ended months.

Jobs select assets by name, so that this module needs to know nothing of how they are made.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
from sqlalchemy import Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.orchestration.partitions import key_of
from prepaid_pipeline.orchestration.renewal_jobs import QUEUE_TAG
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.revenue.figures import first_open_month, next_month
from prepaid_pipeline.revenue.rules import INPUTS
from prepaid_pipeline.settings.load import Settings

# Dagster's tags for one run over several partitions.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
# The ops behind the assets; both take the business date.
REVENUE_OPS = ("monthly_figures", "monthly_revenue_report")
CHECK_OP = "input_checks"
LATE_DATA_OP, LATE_DATA_CHECK = "late_data", "closed_months_show_todays_truth"
# Metadata of that check: the first and last months of each range that has changed, as keys.
CHANGED_RANGES = "changed ranges"
# Metadata of the figures: the months that keep figures as of a later date, a sentence a line.
KEPT = "kept"

_LATE_DATA = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("monthly_revenue_report"), LATE_DATA_CHECK)
)
# The assets of step 12, which the report is made from.
FIGURES = (
    "mrr",
    "mrr_by_country",
    "mrr_movements",
    "plan_activations",
    "activations_by_country",
    "payment_reversals",
    "credit_notes_issued",
    "renewal_outcomes",
    "retention",
    "deferred_revenue",
)
_REVENUE = dg.AssetSelection.assets(*FIGURES, "monthly_revenue_report") - _LATE_DATA
_INPUT_CHECKS = dg.AssetSelection.checks_for_assets(*sorted({s.asset for s in INPUTS}))


def _job(name: str, selection: dg.AssetSelection, description: str) -> Any:
    return dg.define_asset_job(
        name,
        selection=selection,
        description=description,
        executor_def=dg.in_process_executor,
        # One queue for all: two at once would only wait for each other in the database.
        tags={QUEUE_TAG: "revenue"},
    )


materialise_mrr = _job(
    "materialise_mrr",
    _REVENUE,
    "MRR, movements, activations and the report of the months that are still open.",
)
close_month = _job(
    "close_month",
    _REVENUE | _INPUT_CHECKS,
    "Checks the inputs, and closes months: their reports become closed versions.",
)
notice_late_data = _job(
    "notice_late_data",
    _LATE_DATA,
    "Computes the closed months once more and names those that a backfill would change.",
)
REVENUE_JOBS: Sequence[Any] = (materialise_mrr, close_month, notice_late_data)


def run_config(
    as_of: date, ops: Sequence[str] = REVENUE_OPS, *, replay: bool = False
) -> dict[str, Any]:
    """The configuration that gives every op the business date."""
    config = {"as_of": as_of.isoformat(), "replay": replay}
    return {"ops": {op: {"config": config} for op in ops}}


def range_tags(first_month: date, last_month: date) -> dict[str, str]:
    """The tags that make one run of the months from first to last."""
    return {RANGE_START_TAG: key_of(first_month), RANGE_END_TAG: key_of(last_month)}


def revenue_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Hourly figures of the open months at five past, the daily close at 01:30 local time, and a
    look at the closed months at 02:30.
    """
    common: dict[str, Any] = {
        "execution_timezone": str(settings.timezone),
        "default_status": dg.DefaultScheduleStatus.RUNNING,
    }

    @dg.schedule(
        name="materialise_mrr_hourly",
        job_name="materialise_mrr",
        cron_schedule="5 * * * *",
        description="The current month, and the previous one while it can still change.",
        **common,
    )
    def hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        as_of = _business_date(context, settings)
        first = max(first_open_month(as_of, settings.grace_days), settings.first_month)
        if as_of < first:
            return dg.SkipReason(f"no month to report yet: PREPAID_FIRST_MONTH is {first:%Y-%m}")
        running = as_of.replace(day=1)
        return dg.RunRequest(tags=range_tags(first, running), run_config=run_config(as_of))

    # Daily and by state, not on one day of the month: a close that was missed or failed is asked
    # for again the next day.
    @dg.schedule(
        name="close_month_daily",
        job_name="close_month",
        cron_schedule="30 1 * * *",
        description="Closes every month whose days of grace are over and that is not closed yet.",
        **common,
    )
    def close(
        context: dg.ScheduleEvaluationContext, database: Database
    ) -> list[dg.RunRequest] | dg.SkipReason:
        as_of = _business_date(context, settings)
        due = due_months(database.engine(), settings, as_of)
        if not due:
            return dg.SkipReason("every past month is closed")
        config = run_config(as_of, (*REVENUE_OPS, CHECK_OP))
        # With the day in it, the key keeps ticks apart: what fails today is asked for tomorrow.
        return [
            dg.RunRequest(
                run_key=f"{as_of} {first:%Y-%m}", tags=range_tags(first, last), run_config=config
            )
            for first, last in _ranges(due)
        ]

    @dg.schedule(
        name="notice_late_data_daily",
        job_name="notice_late_data",
        cron_schedule="30 2 * * *",
        description="Names the closed months whose figures have changed since they were published.",
        **common,
    )
    def late_data(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        as_of = _business_date(context, settings)
        return dg.RunRequest(run_config=run_config(as_of, (LATE_DATA_OP,)))

    return [hourly, close, late_data]


def _business_date(context: dg.ScheduleEvaluationContext, settings: Settings) -> date:
    # The tick's own date, not today's: a tick that is caught up later works for its own day.
    return context.scheduled_execution_time.astimezone(settings.timezone).date()


def due_months(engine: Engine, settings: Settings, as_of: date) -> list[date]:
    """The months whose days of grace are over on ``as_of`` and that have no closed version yet."""
    last = (first_open_month(as_of, settings.grace_days) - timedelta(days=1)).replace(day=1)
    params = {"first_month": settings.first_month, "last_month": last}
    due = queries.statement("revenue/months", "due_months")
    with engine.connect() as connection:
        return list(due.execute(connection, params).scalars())


def _ranges(months: Sequence[date]) -> Iterator[tuple[date, date]]:
    first = last = months[0]
    for month in months[1:]:
        if month != next_month(last):
            yield first, last
            first = month
        last = month
    yield first, last
