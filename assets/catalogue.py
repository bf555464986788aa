"""All assets and asset checks, listed by hand."""

from collections.abc import Sequence

import dagster as dg

from assets.checks import input_checks, late_data
from assets.operational import OPERATIONAL_TABLES
from assets.report import monthly_revenue_report
from assets.revenue import monthly_figures
from prepaid_pipeline.orchestration.partitions import Months

ASSET_CHECKS = (input_checks, late_data)


def assets(months: Months) -> Sequence[dg.AssetsDefinition | dg.AssetSpec]:
    """The operational tables, the monthly figures and the report, over these months."""
    return [*OPERATIONAL_TABLES, monthly_figures(months), monthly_revenue_report(months)]
