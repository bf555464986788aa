"""``prepaid backfill``: a range of months as one Dagster run in this process, with the definitions
that the daemon has, recorded where the daemon records its runs.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, EventLogEntry

from prepaid_pipeline.database import connections
from prepaid_pipeline.errors import DatabaseNotReady, PrepaidError, UnknownThing
from prepaid_pipeline.operations.service import in_process_runs
from prepaid_pipeline.operations.service.dagster_instance import prepare_dagster_home
from prepaid_pipeline.orchestration.revenue_jobs import KEPT, range_tags, run_config
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.settings.load import Settings

JOB = "materialise_mrr"
# Dagster's own lines on the console: the command says what a person needs to know.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Outcome:
    """What a backfill came to: ``failed_checks`` say each in a sentence what is wrong, ``kept``
    which months were left alone.
    """

    run_id: str
    recorded: bool
    failed_checks: tuple[str, ...]
    kept: tuple[str, ...]


def run(
    definitions: dg.Definitions,
    settings: Settings,
    span: Span,
    progress: Callable[[str], None],
    *,
    replay: bool = False,
) -> Outcome:
    """Materialise the figures and reports of the span; nothing is published if a check fails.

    Figures as of a later date than the span's stay, except in a ``replay``.
    Raises UnknownThing for months that have no partition, PrepaidError when the run itself fails.
    """
    _require_partitions(settings, span)
    job = definitions.resolve_job_def(JOB)
    with ExitStack() as stack:
        instance, recorded = stack.enter_context(_instance(settings, progress))
        run_id = dg.DagsterRun(job_name=JOB).run_id
        tags = range_tags(span.first_month, span.last_month)
        if recorded:
            engine = connections.engine(settings)
            stack.callback(engine.dispose)
            in_process_runs.close_lost(instance, engine)
            stack.enter_context(in_process_runs.working(engine, run_id))
            tags |= in_process_runs.tags()
        # The only way to hear of a run in this process while it is in progress.
        instance.add_event_listener(run_id, lambda entry: _tell(entry, progress))
        result = job.execute_in_process(
            run_config={**run_config(span.as_of, replay=replay), **_QUIET},
            tags=tags,
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
        )
    failed = tuple(
        f"{e.check_name}: {e.description}"
        for e in result.get_asset_check_evaluations()
        if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR
    )
    if not result.success and not failed:
        raise PrepaidError(f"the backfill failed: {_cause(result)}")
    return Outcome(run_id, recorded, failed, _kept(result))


def _kept(result: dg.ExecuteInProcessResult) -> tuple[str, ...]:
    for event in result.get_asset_materialization_events():
        if kept := event.step_materialization_data.materialization.metadata.get(KEPT):
            return tuple(str(kept.value).splitlines())
    return ()


def _require_partitions(settings: Settings, span: Span) -> None:
    if span.first_month < settings.first_month:
        raise UnknownThing(
            f"{span.first_month:%Y-%m} is before the first month that can be reported,"
            f" PREPAID_FIRST_MONTH={settings.first_month:%Y-%m}: set that to an earlier month"
        )
    if span.last_month > settings.today():
        raise UnknownThing(f"{span.last_month:%Y-%m} has not begun: today is {settings.today()}")


@contextmanager
def _instance(
    settings: Settings, progress: Callable[[str], None]
) -> Iterator[tuple[DagsterInstance, bool]]:
    """The installation's Dagster instance; one for this run alone if its storage cannot be made."""
    try:
        needed = prepare_dagster_home(settings)
    except DatabaseNotReady as error:
        progress(f"Dagster will not show this run: {error}")
        with DagsterInstance.ephemeral() as instance:
            yield instance, False
        return
    before = {name: os.environ.get(name) for name in needed}
    os.environ.update(needed)
    try:
        with DagsterInstance.get() as instance:
            yield instance, True
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tell(entry: EventLogEntry, progress: Callable[[str], None]) -> None:
    event = entry.dagster_event
    if event is None:
        progress(entry.user_message)
    elif event.event_type == DagsterEventType.STEP_START:
        progress(str(event.step_key).replace("_", " "))


def _cause(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.event_type == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                return error.message.strip()
    return "see the run's log"
