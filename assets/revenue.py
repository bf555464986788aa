"""Step 12: the monthly figures (mrr and those published with it), made together from one snapshot,
so that they always agree. A run takes any range of months at once: stage, validate, publish.
"""

from collections.abc import Iterator

import dagster as dg

from assets import common, plots
from assets.checking import check_results, check_specs, report_failures
from prepaid_pipeline.database import connections as db
from prepaid_pipeline.orchestration.partitions import Months, key_of
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.orchestration.revenue_jobs import KEPT
from prepaid_pipeline.revenue import figures, validation
from prepaid_pipeline.revenue.report.content.figures import collect
from prepaid_pipeline.revenue.report.formats import drawing
from prepaid_pipeline.revenue.rules import MONTHLY_FIGURES
from prepaid_pipeline.teams import Team

OP_NAME = "monthly_figures"
_DESCRIPTIONS = {
    "mrr": "Monthly recurring revenue on the month's last day, by currency and plan: the net price"
    " of the plans active that day, per month of their term. Not rounded.",
    "mrr_by_country": "The same by the customer's country, with the customers there.",
    "mrr_movements": "What moved MRR between two month ends, per customer: new, reactivation,"
    " expansion, contraction, churn. Start + movements = end.",
    "plan_activations": "Plans that began in the month, by plan and kind: new, renewal,"
    " reactivation, change.",
    "activations_by_country": "The same by the customer's country and kind.",
    "payment_reversals": "Payment reversals of the month, with tax: refunds, chargebacks,"
    " chargeback reversals, payments that failed after they had succeeded.",
    "credit_notes_issued": "Credit notes of the month: how many, net, tax and total.",
    "renewal_outcomes": "Terms that ended in the month, by currency, plan and country, and their"
    " outcome: renewed on time or in grace, reactivated, cancelled, waiting, lapsed.",
    "retention": "The customers with MRR a month and a year ago: how many remain, and how much"
    " of their MRR; and the same for cohorts by the month of the first MRR"
    " (revenue.cohorts).",
    "deferred_revenue": "Deferred revenue: opening + billed - recognised - refunded = closing,"
    " reconciled to invoices and cash (revenue.reconciliation). Without tax.",
}


def _spec(name: str, deps: list[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        deps=deps,
        # Nothing is materialised when a check fails.
        skippable=True,
        group_name="revenue",
        freshness_policy=common.FRESH,
        owners=[Team.FINANCE.owner],
        kinds={"postgres", "sql"},
        description=_DESCRIPTIONS[name],
        metadata={"dagster/table_name": f"revenue.{name}"},
    )


def monthly_figures(months: Months) -> dg.AssetsDefinition:
    """The assets of step 12 over these months."""

    @dg.multi_asset(
        name=OP_NAME,
        description="Stages, validates and publishes all figures of the months.",
        specs=[
            _spec("mrr", ["service_plans"]),
            _spec("mrr_by_country", ["service_plans", "mrr"]),
            _spec("mrr_movements", ["service_plans", "mrr"]),
            _spec("plan_activations", ["service_plans"]),
            _spec("activations_by_country", ["service_plans", "plan_activations"]),
            _spec("payment_reversals", ["transactions"]),
            _spec("credit_notes_issued", ["invoices"]),
            _spec("renewal_outcomes", ["service_plans"]),
            _spec("retention", ["mrr_movements"]),
            _spec("deferred_revenue", ["service_plans", "invoices", "transactions"]),
        ],
        check_specs=check_specs(MONTHLY_FIGURES, blocking=True),
        partitions_def=months,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def monthly_figures(
        context: dg.AssetExecutionContext, config: common.BusinessDay, database: Database
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        settings, engine = database.settings(), database.engine()
        span = config.span(context, database)
        if span.is_long:
            validation.start()
        with figures.one_at_a_time(engine):
            figures.stage(engine, span, context.run.run_id)
            findings = validation.validate(
                db.url(settings), MONTHLY_FIGURES, run_id=context.run.run_id, as_of=span.as_of
            )
            if span.is_long:
                # Not before: the rules' library is still being loaded, and the cores are few.
                drawing.start()
            validation.keep(
                engine, "figures", findings, run_id=context.run.run_id, as_of=span.as_of
            )
            yield from check_results(findings)
            if report_failures(context, findings):
                context.log.error(f"nothing is published for {span}: the last good figures stay")
                return
            kept = figures.publish(engine, context.run.run_id, replay=config.replay)
            with engine.connect() as connection:
                reports = collect(connection, span.first_month, span.last_month)
        told: dict[str, dg.MarkdownMetadataValue] = {}
        if kept:
            told[KEPT] = dg.MetadataValue.md("\n".join(str(month) for month in kept))
            context.log.warning(told[KEPT].value)
        context.log.info(f"published {span} as of {span.as_of}")
        for name in plots.ASSETS:
            for month, currencies in reports.items():
                shown = plots.of_month(name, currencies)
                context.add_asset_metadata(shown, name, key_of(month))
            yield dg.MaterializeResult(
                asset_key=name,
                metadata={"figures": common.table(reports)} | told,
            )

    return monthly_figures
