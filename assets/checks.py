"""Checks on the tables that the monthly figures are made from. They stop nothing: they tell."""

from collections.abc import Iterator

import dagster as dg

from assets.checking import check_results, check_specs
from assets.figures import BusinessDay
from prepaid_pipeline import database as db
from prepaid_pipeline import quality
from prepaid_pipeline.resources import Database
from prepaid_pipeline.rules import INPUTS

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
    findings = quality.validate(
        db.url(settings), INPUTS, run_id=context.run.run_id, as_of=config.day(settings)
    )
    for finding in findings:
        if not finding.passed:
            context.log.warning(str(finding))
    yield from check_results(findings)
