"""Checks on the tables that the monthly figures are made from. They stop nothing: they tell."""

from collections.abc import Iterator

import dagster as dg

from assets.checking import check_results, check_specs
from assets.common import BusinessDay
from prepaid_pipeline.database import connections as db
from prepaid_pipeline.orchestration.partitions import key_of
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import (
    CHANGED_RANGES,
    LATE_DATA_CHECK,
    LATE_DATA_OP,
)
from prepaid_pipeline.revenue import validation
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.late_data import changed_months
from prepaid_pipeline.revenue.rules import INPUTS

OP_NAME = "input_checks"


@dg.multi_asset_check(
    name=OP_NAME,
    specs=check_specs(INPUTS, blocking=False),
    description="Whether customers, plans, invoices, payments and the log are fit for the figures.",
)
def input_checks(
    context: dg.AssetCheckExecutionContext, config: BusinessDay, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Every rule on the operational tables, as of the business date."""
    settings = database.settings()
    run_id, as_of = context.run.run_id, config.day(database)
    findings = validation.validate(db.url(settings), INPUTS, run_id=run_id, as_of=as_of)
    validation.keep(database.engine(), "inputs", findings, run_id=run_id, as_of=as_of)
    for finding in findings:
        if not finding.passed:
            context.log.warning(str(finding))
    yield from check_results(findings)


@dg.multi_asset_check(
    name=LATE_DATA_OP,
    specs=[
        dg.AssetCheckSpec(
            LATE_DATA_CHECK,
            asset="monthly_revenue_report",
            description="Computed again, every closed month's figures are the published ones."
            " If not, a backfill publishes a new version.",
        )
    ],
    description="Computes the closed months once more and names those that have changed.",
)
def late_data(
    context: dg.AssetCheckExecutionContext, config: BusinessDay, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Warns, names the months and marks each of them in the asset's timeline; publishes nothing."""
    changed = changed_months(database.engine(), config.day(database))
    for months in changed:
        context.log.warning(months.sentence)
        for month in Span(months.first_month, months.last_month, months.last_month).months():
            observed = dg.AssetObservation(
                "monthly_revenue_report",
                partition=key_of(month),
                description=months.sentence,
                metadata={"changed": months.sentence},
            )
            context.op_execution_context.log_event(observed)
    yield dg.AssetCheckResult(
        passed=not changed,
        asset_key="monthly_revenue_report",
        check_name=LATE_DATA_CHECK,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(str, changed)) or "no closed month has changed",
        metadata={
            "changed": dg.MetadataValue.md("\n".join(f"- {months}" for months in changed)),
            CHANGED_RANGES: dg.MetadataValue.json(
                [[key_of(months.first_month), key_of(months.last_month)] for months in changed]
            ),
        },
    )
