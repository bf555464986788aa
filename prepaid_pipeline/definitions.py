"""The code location: everything that Dagster knows of, as explicit lists."""

from typing import Any

import dagster as dg

from assets import catalogue
from prepaid_pipeline.orchestration import partitions
from prepaid_pipeline.orchestration.audit_jobs import AUDIT_JOBS
from prepaid_pipeline.orchestration.renewal_jobs import JOBS
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import REVENUE_JOBS, revenue_schedules
from prepaid_pipeline.orchestration.schedules import daily_schedules
from prepaid_pipeline.orchestration.upkeep_jobs import UPKEEP_JOBS
from prepaid_pipeline.settings.load import load
from sensors.changed_months import changed_months
from sensors.late_figures import late_figures
from sensors.outbox import outbox
from sensors.payment_records import payment_records
from sensors.purchases import purchases
from sensors.run_failures import run_failures
from sensors.sign_offs import sign_offs
from sensors.unsealed_entries import unsealed_entries
from sensors.waiting_too_long import waiting_too_long

SENSORS = (
    purchases,
    payment_records,
    sign_offs,
    outbox,
    run_failures,
    late_figures,
    waiting_too_long,
    changed_months,
    unsealed_entries,
)


def build_defs(**overrides: Any) -> dg.Definitions:
    """Fresh definitions; ``overrides`` replace resources by key (tests give their own)."""
    settings = load()
    months = partitions.monthly(settings)
    return dg.Definitions(
        assets=catalogue.assets(months),
        asset_checks=catalogue.ASSET_CHECKS,
        jobs=[*JOBS, *REVENUE_JOBS, *AUDIT_JOBS, *UPKEEP_JOBS],
        schedules=[*daily_schedules(settings), *revenue_schedules(settings)],
        sensors=SENSORS,
        resources={"database": Database(), **overrides},
        # For backfills from the UI too: a process per asset would import everything again.
        executor=dg.in_process_executor,
    )


defs = build_defs()
