"""Daily schedules of the process. The revenue schedules are with their jobs."""

import dagster as dg

from prepaid_pipeline.orchestration.audit_jobs import anchor_audit_log, verify_audit_log
from prepaid_pipeline.orchestration.renewal_jobs import (
    dun_unpaid_invoices,
    expire_service_plans,
    open_renewals,
    remind_overdue_tasks,
)
from prepaid_pipeline.orchestration.upkeep_jobs import clean_up
from prepaid_pipeline.settings.load import Settings


def daily_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Renewals at 00:10 and expiry at 00:20 local time: soon after the local day has begun, and
    not at midnight itself, when a clock that is off by a minute would give the day before.
    Unpaid invoices at 10:00: a payment of the last day is on the bank's statement of the next
    morning, and customers get their mail by day. Overdue tasks at 07:00: before the day's work.
    The audit log is anchored at 00:30, after the night's renewals.
    Old runs are deleted at 03:30 and the whole audit log is verified at 04:30, when little else is
    going on.
    """
    return [
        _daily("open_renewals_daily", open_renewals, "open_service_plans", "10 0 * * *", settings),
        _daily(
            "expire_service_plans_daily",
            expire_service_plans,
            "expire_ended_plans",
            "20 0 * * *",
            settings,
        ),
        _daily(
            "dun_unpaid_invoices_daily",
            dun_unpaid_invoices,
            "remind_unpaid_invoices",
            "0 10 * * *",
            settings,
        ),
        _daily(
            "remind_overdue_tasks_daily",
            remind_overdue_tasks,
            "remind_of_overdue_tasks",
            "0 7 * * *",
            settings,
        ),
        _daily(
            "anchor_audit_log_daily", anchor_audit_log, "anchor_newest_seal", "30 0 * * *", settings
        ),
        _daily(
            "verify_audit_log_daily", verify_audit_log, "verify_whole_log", "30 4 * * *", settings
        ),
        _daily("clean_up_daily", clean_up, "delete_old_runs", "30 3 * * *", settings),
    ]


def _daily(
    name: str, job: dg.JobDefinition, first_op: str, cron: str, settings: Settings
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(settings.timezone),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{job.description} Every day, for the day that has begun.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        # The tick's own date, not today's: a tick that is caught up later works for its own day.
        as_of = context.scheduled_execution_time.astimezone(settings.timezone).date()
        return dg.RunRequest(
            run_config={"ops": {first_op: {"config": {"as_of": as_of.isoformat()}}}}
        )

    return schedule
