"""A small code location: a job that is launched, and assets of which months are filled in."""

import dagster as dg


@dg.op
def nothing() -> None: ...


@dg.job
def quick() -> None:
    nothing()


@dg.asset(partitions_def=dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2026-07-01"))
def figures() -> None: ...


defs = dg.Definitions(jobs=[quick], assets=[figures])
