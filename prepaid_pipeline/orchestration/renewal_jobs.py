"""The jobs. People stand between them; no run ever waits for a person.

All ops of a run share one process: the multiprocess executor takes seconds per op, a step over
10,000 plans less than one.
"""

import dagster as dg

from prepaid_pipeline.audit import seals
from prepaid_pipeline.billing import dunning, payment_matching
from prepaid_pipeline.mail.sender import send_emails as send_waiting_emails
from prepaid_pipeline.orchestration.ops import (
    STEP_OPS,
    BusinessDate,
    business_context,
    claim_verified_plans,
    open_service_plans,
)
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.people import overdue_tasks
from prepaid_pipeline.process import steps

# dagster.yaml allows one live run per value of this tag, sensors look for it before they ask.
QUEUE_TAG = "prepaid/queue"


def _through(queue: str, batches: dg.DynamicOutput[int]) -> None:
    for step in steps.QUEUES[queue]:
        batches = batches.map(STEP_OPS[step])  # type: ignore[attr-defined]


@dg.graph
def open_renewals_graph() -> None:
    """Steps 0-5: from a due plan to an invoice that waits for its payment."""
    _through("open_renewals", open_service_plans())


@dg.graph
def settle_renewals_graph() -> None:
    """Steps 6-11: from a cleared payment to an active, confirmed plan."""
    _through("settle_renewals", claim_verified_plans())


@dg.op(description="Gives each new payment record one outcome.", tags={"dagster/kind": "sql"})
def match_payment_records(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """Matched, parked with a reason, superseded or waiting."""
    outcomes = payment_matching.match_payments(database.engine(), config.context(context, database))
    return dg.Output(None, metadata=dict(outcomes))


@dg.op(description="Acts on the quality decisions that were made.", tags={"dagster/kind": "sql"})
def close_decided_quality_checks(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """Passed closes; failed holds the plan and opens a follow-up."""
    closed = steps.close_quality_checks(database.engine(), config.context(context, database))
    return dg.Output(None, metadata=dict(closed))


@dg.op(description="Active -> Expired for terms that have ended.", tags={"dagster/kind": "sql"})
def expire_ended_plans(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """The term's range is [start, end): it ends on end_date."""
    expired = steps.expire_service_plans(database.engine(), config.context(context, database))
    return dg.Output(None, metadata={"expired": expired})


@dg.op(
    out=dg.Out(str),
    description="Orders the reminders that are due; passes on the business date.",
    tags={"dagster/kind": "sql"},
)
def remind_unpaid_invoices(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[str]:
    """One mail per invoice, for the latest day of PREPAID_REMINDER_DAYS that has come."""
    business = config.context(context, database)
    for source in dunning.silent_sources(database.engine(), business):
        context.log.warning(f"Nobody is reminded, and no plan is cancelled: {source}")
    reminded = dunning.remind_unpaid(database.engine(), business)
    return dg.Output(business.as_of.isoformat(), metadata={"reminded": reminded})


@dg.op(
    ins={"as_of": dg.In(str)},
    description="Cancels the plans whose last day to pay has passed, and voids their invoices.",
    tags={"dagster/kind": "sql"},
)
def cancel_unpaid_plans(
    context: dg.OpExecutionContext, database: Database, as_of: str
) -> dg.Output[None]:
    """PREPAID_PAYMENT_DAYS after the invoice was due."""
    cancelled = dunning.cancel_unpaid(database.engine(), business_context(context, database, as_of))
    return dg.Output(None, metadata={"cancelled": cancelled})


@dg.op(description="Orders the emails about overdue tasks.", tags={"dagster/kind": "sql"})
def remind_of_overdue_tasks(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """To who is asked or the whole team, and after PREPAID_ESCALATE_DAYS to the team's lead."""
    business = config.context(context, database)
    mails = overdue_tasks.remind_overdue(database.engine(), database.settings(), business)
    return dg.Output(None, metadata={"mails": mails})


@dg.op(description="Sends the emails in the outbox.", tags={"dagster/kind": "python"})
def send_outbox(
    context: dg.OpExecutionContext, config: BusinessDate, database: Database
) -> dg.Output[None]:
    """Over SMTP, or as .eml files while no server is set."""
    business = config.context(context, database)
    result = send_waiting_emails(
        database.engine(), database.settings(), as_of=business.as_of, run_id=context.run_id
    )
    metadata = {
        "sent": result.sent,
        "failed": result.failed,
        "retried": result.retried,
        "dropped": result.dropped,
        "unknown": result.unknown,
    }
    return dg.Output(None, metadata=metadata)


@dg.graph
def match_payments_graph() -> None:
    """Every payment record that has arrived gets its outcome."""
    match_payment_records()


@dg.graph
def close_quality_checks_graph() -> None:
    """Quality checks: passed ones are closed, failed ones get a follow-up."""
    close_decided_quality_checks()


@dg.graph
def expire_service_plans_graph() -> None:
    """Terms that have ended become Expired."""
    expire_ended_plans()


@dg.graph
def dun_unpaid_invoices_graph() -> None:
    """Customers who have not paid are reminded; in the end the plan is cancelled."""
    cancel_unpaid_plans(remind_unpaid_invoices())


@dg.graph
def remind_overdue_tasks_graph() -> None:
    """Reports overdue tasks to people, and later to their team's lead."""
    remind_of_overdue_tasks()


@dg.graph
def send_emails_graph() -> None:
    """Sends the emails that wait in the outbox."""
    send_outbox()


@dg.success_hook(
    name="seal_what_was_logged",
    required_resource_keys={"database"},
)
def seal_what_was_logged(context: dg.HookContext) -> None:
    """Seals the audit log after each op that is a job's whole work; a batch's last step does it."""
    if context.op.name not in STEP_OPS:
        seals.seal_after(context.resources.database.engine())


def queued(
    name: str, graph: dg.GraphDefinition, hooks: frozenset[dg.HookDefinition] = frozenset()
) -> dg.JobDefinition:
    """A graph as the job of a queue of its own, all of its ops in one process."""
    return graph.to_job(
        name=name,
        description=graph.description,
        executor_def=dg.in_process_executor,
        # A run whose process died is started again from the beginning: the steps find what is left
        # to do in the database, and the dead run's outputs were in its memory.
        tags={QUEUE_TAG: name, "dagster/retry_strategy": "ALL_STEPS"},
        hooks=hooks,
    )


def _job(name: str, graph: dg.GraphDefinition) -> dg.JobDefinition:
    return queued(name, graph, frozenset({seal_what_was_logged}))


open_renewals = _job("open_renewals", open_renewals_graph)
match_payments = _job("match_payments", match_payments_graph)
settle_renewals = _job("settle_renewals", settle_renewals_graph)
close_quality_checks = _job("close_quality_checks", close_quality_checks_graph)
send_emails = _job("send_emails", send_emails_graph)
expire_service_plans = _job("expire_service_plans", expire_service_plans_graph)
dun_unpaid_invoices = _job("dun_unpaid_invoices", dun_unpaid_invoices_graph)
remind_overdue_tasks = _job("remind_overdue_tasks", remind_overdue_tasks_graph)

JOBS = (
    open_renewals,
    match_payments,
    settle_renewals,
    close_quality_checks,
    send_emails,
    expire_service_plans,
    dun_unpaid_invoices,
    remind_overdue_tasks,
)
