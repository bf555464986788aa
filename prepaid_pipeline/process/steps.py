"""The process without an orchestrator: open, claim, take a batch through its steps, settle.

The ops of ``orchestration/ops.py`` and the command ``prepaid drain`` call the same functions. Each
step is one SQL file of ``sql/steps`` in one transaction over a batch; exactly-once comes from the
keys in the schema. When a statement itself fails, the batch is halved until the plan that breaks it
is alone.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.audit import seals
from prepaid_pipeline.context import (
    UNLIMITED,
    Context,
    is_locked,
    left_over,
    say_passed_over,
    transaction,
)
from prepaid_pipeline.database import queries, waits
from prepaid_pipeline.database.halving import halving

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """How many plans of its batch a step took, finished and held, and how many it passed over
    because somebody else had locked them.
    """

    step: str
    taken: int = 0
    finished: int = 0
    held: int = 0
    passed_over: int = 0

    def __add__(self, other: "StepResult") -> "StepResult":
        return StepResult(
            self.step,
            self.taken + other.taken,
            self.finished + other.finished,
            self.held + other.held,
            self.passed_over + other.passed_over,
        )


OPENING_STEPS = {
    "retrieve_subscription_details": "steps/01_retrieve_subscription_details",
    "mark_plans_processing": "steps/02_mark_plans_processing",
    "calculate_invoice_totals": "steps/03_calculate_invoice_totals",
    "create_invoices": "steps/04_create_invoices",
    "assign_payment_verification": "steps/05_assign_payment_verification",
}
SETTLING_STEPS = {
    "check_payment_status": "steps/06_check_payment_status",
    "mark_invoices_paid": "steps/07_mark_invoices_paid",
    "activate_service_plans": "steps/08_activate_service_plans",
    "write_provisioning_log": "steps/09_write_provisioning_log",
    "send_activation_confirmations": "steps/10_send_activation_confirmations",
    "assign_quality_checks": "steps/11_assign_quality_checks",
}
STEPS = OPENING_STEPS | SETTLING_STEPS
# What waits for the plans that a claim of the queue has passed over.
_LEFT = {"open_renewals": "open_renewals_left", "settle_renewals": "settle_renewals_left"}
QUEUES = {"open_renewals": tuple(OPENING_STEPS), "settle_renewals": tuple(SETTLING_STEPS)}


def open_service_plans(engine: Engine, context: Context) -> int:
    """Step 0: open a Pending plan for each due renewal and each purchase; how many were opened."""
    with engine.connect() as connection:
        parts = queries.statement("process/batches/open", "parts")
        subscriptions = parts.execute(connection, context.parameters()).all()
    return sum(
        _open(engine, context, opening, range(part.first, part.last + 1))
        for opening in ("open_renewals", "open_first_plans")
        for part in subscriptions
    )


def claim(engine: Engine, queue: str, context: Context) -> int | None:
    """Claim up to ``context.batch_size`` waiting plans of a queue; the batch's id, None if none.

    Plans that others have locked are passed over, and claimed if they are free soon.
    """
    left = queries.statement("process/batches/claim", _LEFT[queue])
    while (batch_id := _claim(engine, queue, context)) is None:
        if not left_over(engine, context, left, context.parameters()):
            return None
    return batch_id


def _claim(engine: Engine, queue: str, context: Context) -> int | None:
    with transaction(engine, context) as connection:
        params = {**context.parameters(), "queue": queue}
        opened = queries.statement("process/batches/claim", "open_batch").execute(
            connection, params
        )
        batch_id = int(opened.scalar_one())
        claimed = queries.statement("process/batches/claim", queue).execute(
            connection, {**params, "batch_id": batch_id}
        )
        if claimed.rowcount > 0:
            logs.event(
                log,
                "batch claimed",
                batch_id=batch_id,
                queue=queue,
                plans=claimed.rowcount,
                job=context.actor,
                run_id=context.run_id,
            )
            return batch_id
        connection.rollback()
    return None


def claim_all(engine: Engine, queue: str, context: Context) -> Iterator[int]:
    """Batch after batch while there are any."""
    while (batch_id := claim(engine, queue, context)) is not None:
        yield batch_id


def at_business_date(engine: Engine, batch_id: int, context: Context) -> Context:
    """The same context on the business date that the batch was claimed for."""
    with engine.connect() as connection:
        found = queries.statement("process/batches/claim", "business_date").execute(
            connection, {"batch_id": batch_id}
        )
        return replace(context, as_of=found.scalar_one())


def run_step(engine: Engine, step: str, batch_id: int, context: Context) -> StepResult:
    """Take a batch through one step; bad plans are held and leave the batch.

    Raises what is not a plan's fault: a lost connection, a deadlock, a fault in the SQL.
    """
    around = partial(queries.statement, "process/batches/step")
    params = context.parameters() | {"batch_id": batch_id}

    def attempt(plans: list[int]) -> StepResult:
        asked = params | {"plans": _array(plans)}
        try:
            with transaction(engine, context, waits.PATIENCE_SECONDS) as connection:
                around("renew_lease").execute(connection, params)
                held = around("leave_held").execute(connection, asked).rowcount
                locked = around("lock_plans").execute(connection, asked).one()
                return _go_through(connection, locked, held)
        except DBAPIError as error:
            if not is_locked(error):
                raise
        with transaction(engine, context) as connection:
            around("renew_lease").execute(connection, params)
            locked = around("lock_free_plans").execute(connection, asked).one()
            left = params | {"asked": asked["plans"], "plans": locked.plans}
            passed_over = around("leave_locked").execute(connection, left).scalar_one()
            result = _go_through(connection, locked, 0)
        if passed_over:
            say_passed_over(engine, context, step=step, batch_id=batch_id, plans=passed_over)
        return replace(result, passed_over=passed_over)

    def _go_through(connection: Connection, locked: Any, held: int) -> StepResult:
        left = params | {"plans": locked.plans}
        queries.run(connection, STEPS[step], left)
        held_now = around("leave_held").execute(connection, left).rowcount
        return StepResult(step, held + locked.number, locked.number - held_now, held + held_now)

    def hold(plans: list[int], reason: str) -> StepResult:
        # Not the reason: the database quotes what it refuses. The hold has it.
        said = {"step": step, "batch_id": batch_id, "run_id": context.run_id}
        for plan in plans:
            logs.event(log, "plan held", logging.WARNING, service_plan_id=plan, **said)
        text = f"Step {step} failed: {reason}. Correct the data it names, then release the hold."
        with transaction(engine, context) as connection:
            alone = params | {"plans": _array(plans), "text": text}
            around("hold_failed_plan").execute(connection, alone)
            held = around("leave_held").execute(connection, alone).rowcount
        return StepResult(step, held, 0, held)

    about = {"step": step, "batch_id": batch_id, "job": context.actor, "run_id": context.run_id}
    with logs.timed(log, "step", **about) as fields:
        with engine.connect() as connection:
            found = around("plans_of_batch").execute(connection, params).scalar_one()
        plans = [int(plan) for plan in found.strip("{}").split(",") if plan]
        result = halving(attempt, hold, plans)
        fields |= {"taken": result.taken, "finished": result.finished, "held": result.held}
        if result.passed_over:
            fields["passed_over"] = result.passed_over
    if any(step == steps[-1] for steps in QUEUES.values()):
        with transaction(engine, context) as connection:
            around("finish_batch").execute(connection, params)
        seals.seal_after(engine)
    return result


def run_batch(engine: Engine, queue: str, batch_id: int, context: Context) -> list[StepResult]:
    """Take a batch through all steps of its queue."""
    return [run_step(engine, step, batch_id, context) for step in QUEUES[queue]]


def close_quality_checks(engine: Engine, context: Context) -> dict[str, int]:
    """Act on the quality decisions that were made; passed and failed -> number of tasks."""
    totals = {"passed": 0, "failed": 0}
    statement = queries.statement("process/close_quality_checks", "close")
    left = queries.statement("process/close_quality_checks", "quality_checks_left")
    while True:
        with transaction(engine, context) as connection:
            closed = statement.execute(connection, context.parameters()).one()
        if closed.passed + closed.failed == 0:
            if left_over(engine, context, left, context.parameters()):
                continue
            return totals
        totals["passed"] += closed.passed
        totals["failed"] += closed.failed


def expire_service_plans(engine: Engine, context: Context) -> int:
    """Active -> Expired for every term that has ended; how many."""
    expired = 0
    statement = queries.statement("process/expire_service_plans", "expire")
    left = queries.statement("process/expire_service_plans", "ended_plans_left")
    while True:
        with transaction(engine, context) as connection:
            count = statement.execute(connection, context.parameters()).rowcount
        if count == 0 and not left_over(engine, context, left, context.parameters()):
            return expired
        expired += count


def would_expire(engine: Engine, context: Context) -> int:
    """How many terms would expire; changes nothing."""
    statement = queries.statement("process/expire_service_plans", "expire")
    with transaction(engine, context) as connection:
        asked = context.parameters() | {"limit": UNLIMITED}
        count = statement.execute(connection, asked).rowcount
        connection.rollback()
    return count


def would_settle(engine: Engine, context: Context) -> int:
    """How many plans are ready for steps 6-11; changes nothing."""
    with transaction(engine, context) as connection:
        asked = context.parameters() | {"limit": UNLIMITED, "batch_id": None}
        claim = queries.statement("process/batches/claim", "settle_renewals")
        count = claim.execute(connection, asked).rowcount
        connection.rollback()
    return count


def _open(engine: Engine, context: Context, opening: str, subscriptions: range) -> int:
    params = context.parameters()
    statement = queries.statement("steps/00_open_service_plans", opening)

    def attempt(subscriptions: range) -> int:
        with transaction(engine, context) as connection:
            return statement.execute(connection, params | _bounds(subscriptions)).rowcount

    def note(subscriptions: range, reason: str) -> int:
        logs.event(
            log,
            "no plan opened",
            logging.WARNING,
            subscription_id=subscriptions.start,
            run_id=context.run_id,
        )
        with transaction(engine, context) as connection:
            failed = queries.statement("process/batches/open", "note_failed")
            failed.execute(connection, params | _bounds(subscriptions) | {"text": reason})
        return 0

    return halving(attempt, note, subscriptions)


def _array(ids: list[int]) -> str:
    """A bigint[] in PostgreSQL's own form. The driver would look at each element for its type: ten
    thousand ids took it 30 ms, for every statement of a step.
    """
    return "{" + ",".join(map(str, ids)) + "}"


def _bounds(ids: range) -> dict[str, int]:
    return {"first": ids.start, "last": ids.stop - 1}
