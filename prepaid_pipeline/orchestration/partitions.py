"""The months as Dagster partitions, named as people write them: 2026-10."""

from datetime import date

import dagster as dg

from prepaid_pipeline.settings.load import Settings

MONTH_FORMAT = "%Y-%m"
Months = dg.MonthlyPartitionsDefinition


def monthly(settings: Settings) -> Months:
    """From PREPAID_FIRST_MONTH to the current month in PREPAID_TIMEZONE. ``end_offset`` 1: without
    it a month would exist only once it is over.
    """
    return Months(
        start_date=settings.first_month.strftime(MONTH_FORMAT),
        fmt=MONTH_FORMAT,
        timezone=str(settings.timezone),
        end_offset=1,
    )


def month_of(key: str) -> date:
    """The first day of a partition's month."""
    return date.fromisoformat(f"{key}-01")


def key_of(month: date) -> str:
    """The partition key of a month: ``2026-10``."""
    return month.strftime(MONTH_FORMAT)
