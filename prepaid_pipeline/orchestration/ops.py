"""The steps as Dagster ops. Each passes on a batch id and reports what it took, finished and held.

What a step does is in its SQL file (``ls sql/steps``); how a batch goes through it is in
``process/steps.py``. Here is only what Dagster needs to know.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import PurePath

import dagster as dg
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from prepaid_pipeline.context import Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.language.english import count
from prepaid_pipeline.orchestration import leases
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.process import steps, window
from prepaid_pipeline.process.steps import StepResult


class BusinessDate(dg.Config):
    """``as_of``: the business date, YYYY-MM-DD, today at the latest; today in PREPAID_TIMEZONE when
    it is not given.
    """

    as_of: str | None = None

    def context(self, run: dg.OpExecutionContext, database: Database) -> Context:
        """The process's context for this run. Fails for a day after today."""
        context = business_context(run, database, self.as_of)
        found = window.look(database.engine(), database.settings())
        if context.as_of > found.today:
            raise dg.Failure(
                f"{context.as_of} is after today, {found.today} in {found.zone}: no job works for a"
                " day that has not come. Nothing was done. To do so on purpose: prepaid drain"
                f" --as-of {context.as_of} --yes-this-is-date {context.as_of}",
                allow_retries=False,
            )
        if not found.real and (self.as_of is None or SCHEDULE_NAME_TAG in run.run.tags):
            window.note_real_day(database.engine(), context)
        return context


def business_context(
    run: dg.OpExecutionContext, database: Database, as_of: str | None = None
) -> Context:
    """The context of a run on a business date, today if there is none."""
    day = date.fromisoformat(as_of) if as_of else None
    return Context.of(database.settings(), day, actor=run.job_name, run_id=run.run_id)


def _purpose(script: str) -> str:
    """The comment on top of a step's SQL file."""
    lines = queries.read(script).splitlines()
    comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("-- "))]
    return " ".join(line.removeprefix("-- ") for line in comment)


def _claims(
    run: dg.OpExecutionContext, database: Database, queue: str, context: Context, **figures: int
) -> Iterator[dg.DynamicOutput[int]]:
    if taken_over := leases.end(run.instance, database.engine(), queue):
        run.log.info(f"{count(taken_over)} batches of runs that have ended are taken over")
    for batch_id in steps.claim_all(database.engine(), queue, context):
        run.log.info(f"batch {batch_id} claimed for {context.as_of}")
        yield dg.DynamicOutput(batch_id, mapping_key=f"batch_{batch_id}", metadata=figures)
        figures = {}  # Dagster takes them with an output only: the first batch carries them.


@dg.op(
    out=dg.DynamicOut(int),
    description=_purpose("steps/00_open_service_plans"),
    tags={"dagster/kind": "sql"},
)
def open_service_plans(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> Iterator[dg.DynamicOutput[int]]:
    """Step 0, and the claim of all plans that are waiting for steps 1-5, in batches."""
    business = config.context(context, database)
    opened = steps.open_service_plans(database.engine(), business)
    context.log.info(f"{count(opened)} service plans opened for {business.as_of}")
    yield from _claims(context, database, "open_renewals", business, opened=opened)


@dg.op(
    out=dg.DynamicOut(int),
    description="Claims, in batches, plans whose record is matched and whose payment is approved.",
    tags={"dagster/kind": "sql"},
)
def claim_verified_plans(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> Iterator[dg.DynamicOutput[int]]:
    """Claims batches of paid and approved plans for steps 6-11."""
    yield from _claims(context, database, "settle_renewals", config.context(context, database))


def _step(name: str, script: str) -> dg.OpDefinition:
    @dg.op(
        name=name,
        description=f"{_purpose(script)} (sql/{script}.sql)",
        ins={"batch_id": dg.In(int)},
        out=dg.Out(int),
        tags={"dagster/kind": "sql", "prepaid/step": PurePath(script).name[:2]},
    )
    def step(context: dg.OpExecutionContext, database: Database, batch_id: int) -> dg.Output[int]:
        engine = database.engine()
        asked = business_context(context, database)
        business = steps.at_business_date(engine, batch_id, asked)
        result = steps.run_step(engine, name, batch_id, business)
        context.log.info(_sentence(batch_id, result))
        return dg.Output(batch_id, metadata=_figures(result))

    return step


def _figures(result: StepResult) -> dict[str, int]:
    figures = {"taken": result.taken, "finished": result.finished, "held": result.held}
    # Hardly ever: somebody else has locked them.
    return figures | ({"passed_over": result.passed_over} if result.passed_over else {})


def _sentence(batch_id: int, result: StepResult) -> str:
    said = (
        f"batch {batch_id}: {count(result.taken)} plans taken, {count(result.finished)} finished,"
        f" {count(result.held)} held"
    )
    if not result.passed_over:
        return said
    return f"{said}, {count(result.passed_over)} passed over, because somebody else has locked them"


STEP_OPS = {name: _step(name, script) for name, script in steps.STEPS.items()}
