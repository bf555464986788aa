"""Step 13: the month's report, stored as a version and written as HTML, PDF, XLSX, CSV and JSON."""

from collections.abc import Iterator
from contextlib import ExitStack

import dagster as dg

from assets import common
from assets.checking import check_results, check_specs, report_failures
from prepaid_pipeline.database import connections as db
from prepaid_pipeline.orchestration.partitions import Months, key_of
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import FIGURES
from prepaid_pipeline.revenue import figures, validation
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.revenue.report.content.figures import collect
from prepaid_pipeline.revenue.report.formats import drawing, files
from prepaid_pipeline.revenue.rules import MONTHLY_REPORT
from prepaid_pipeline.storage import INDEX, Store
from prepaid_pipeline.teams import Team

NAME = "monthly_revenue_report"
_SPEC = dg.AssetSpec(
    NAME,
    deps=list(FIGURES),
    # Nothing is materialised when a check fails.
    skippable=True,
    group_name="report",
    freshness_policy=common.FRESH,
    owners=[Team.LEADERSHIP.owner, Team.FINANCE.owner],
    kinds={"html", "pdf"},
    description="New plans against renewals, MRR and its movements. Preliminary until the month is"
    " closed, then a permanent version.",
    metadata={"dagster/table_name": "revenue.monthly_report"},
)


def monthly_revenue_report(months: Months) -> dg.AssetsDefinition:
    """The report asset over these months."""

    # A multi_asset of one, like the figures': @asset calls backfill_policy a beta feature.
    @dg.multi_asset(
        name=NAME,
        description="Stages, validates and publishes the months' reports, and writes their files.",
        specs=[_SPEC],
        check_specs=check_specs(MONTHLY_REPORT, blocking=True),
        partitions_def=months,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def monthly_revenue_report(
        context: dg.AssetExecutionContext, config: common.BusinessDay, database: Database
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        settings, engine = database.settings(), database.engine()
        span, store = config.span(context, database), Store.of(settings)
        with figures.one_at_a_time(engine), ExitStack() as started:
            # What a long run has started ahead ends with it, whatever it came to.
            started.callback(drawing.stop)
            started.callback(validation.stop)
            versions.stage(engine, span, context.run.run_id)
            findings = validation.validate(
                db.url(settings), MONTHLY_REPORT, run_id=context.run.run_id, as_of=span.as_of
            )
            validation.stop()
            validation.keep(engine, "report", findings, run_id=context.run.run_id, as_of=span.as_of)
            yield from check_results(findings)
            if report_failures(context, findings):
                context.log.error(f"no report is published for {span}: the last good ones stay")
                return
            changed = versions.publish(
                engine,
                span,
                context.run.run_id,
                settings.grace_days,
                settings.reporting_currency,
                settings.report_recipients,
            )
            page = files.write(engine, settings, store, span.first_month, span.last_month)
            with engine.connect() as connection:
                latest = {
                    version.month: version
                    for version in versions.load(connection, span.first_month, span.last_month)
                }
                reports = collect(connection, span.first_month, span.last_month)
        published: list[str] = []
        for month, version in latest.items():
            if month in changed:
                published.append(f"{month:%Y-%m}: {version.name}. {version.note}")
            context.add_asset_metadata(
                {
                    "report": _link(store, store.page(month)),
                    "version": version.version,
                    "note": version.note,
                },
                NAME,
                key_of(month),
            )
        # One line for all: Dagster stores each log line on a connection of its own.
        context.log.info("\n".join(published) or f"nothing has changed in {span}")
        yield dg.MaterializeResult(
            metadata={
                "figures": common.table(reports),
                "latest report": _link(store, page),
                "all months": _link(store, store.address(INDEX)),
                "months changed": len(changed),
            }
        )

    return monthly_revenue_report


def _link(store: Store, address: str) -> dg.MetadataValue[str]:
    return dg.MetadataValue.path(address) if store.is_local else dg.MetadataValue.text(address)
