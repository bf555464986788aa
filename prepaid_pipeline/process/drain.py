"""Everything that is ready, in this process: what the daemon would do, until nothing is left."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.billing import dunning, payment_matching
from prepaid_pipeline.context import Context
from prepaid_pipeline.database import waits
from prepaid_pipeline.mail.sender import send_emails
from prepaid_pipeline.people import overdue_tasks
from prepaid_pipeline.process import due, steps
from prepaid_pipeline.settings.load import Settings

Progress = Callable[[str, int], None]


@dataclass
class Drained:
    """Counts of what was done. ``held`` counts plans that a step held, over all steps.
    ``blocked_by`` says who keeps from the pipeline what it has passed over.

    ``skipped``: what was ready and was left because it was not to be done, by the names of the
    counts. ``silent``: what keeps customers from being reminded and plans from being cancelled.
    """

    opened: int = 0
    invoiced: int = 0
    held: int = 0
    settled: int = 0
    expired: int = 0
    records: dict[str, int] = field(default_factory=dict)
    quality: dict[str, int] = field(default_factory=dict)
    mails_sent: int = 0
    mails_failed: int = 0
    mails_retried: int = 0
    reminded: int = 0
    cancelled_unpaid: int = 0
    mails_dropped: int = 0
    overdue_mails: int = 0
    mails_unknown: int = 0
    blocked_by: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)


def drain(
    engine: Engine,
    settings: Settings,
    context: Context,
    progress: Progress = lambda *_: None,
    *,
    final: bool = True,
    opening: bool = True,
) -> Drained:
    """Open, match, settle, close quality checks, dun, expire and mail until nothing is ready.

    May run while the daemon does: claims skip what another worker has taken. ``progress`` is called
    with the name of what is being done and the number of plans it has just finished.

    ``final`` False leaves out what cannot be taken back: expiry, reminders, cancelling what nobody
    paid. ``opening`` False leaves out opening, invoicing and activating plans. What is left out is
    counted.
    """
    done = Drained()
    while _one_round(engine, settings, context, progress, done, final, opening):
        pass
    if not opening:
        waiting = due.waiting(engine, context)
        done.skipped |= {"opened": waiting, "settled": steps.would_settle(engine, context)}
    if not final:
        reminded, cancelled = dunning.would_dun(engine, context)
        done.skipped |= {
            "expired": steps.would_expire(engine, context),
            "reminded": reminded,
            "cancelled_unpaid": cancelled,
            "overdue_mails": overdue_tasks.would_remind(engine, settings, context),
        }
    done.silent = [str(source) for source in dunning.silent_sources(engine, context)]
    seals.seal_after(engine)
    done.blocked_by = [str(blocker) for blocker in waits.blockers(engine) if blocker.may_end]
    return done


def _one_round(
    engine: Engine,
    settings: Settings,
    context: Context,
    progress: Progress,
    done: Drained,
    final: bool,
    opening: bool,
) -> bool:
    opened = invoiced = held_opening = settled = held_settling = 0
    if opening:
        progress("opening", 0)
        opened = steps.open_service_plans(engine, context)
        invoiced, held_opening = _through(engine, "open_renewals", context, progress)
    progress("matching", 0)
    records = payment_matching.match_payments(engine, context)
    if opening:
        settled, held_settling = _through(engine, "settle_renewals", context, progress)
    quality = steps.close_quality_checks(engine, context)
    expired = reminded = cancelled = overdue_mails = 0
    if final:
        expired = steps.expire_service_plans(engine, context)
        progress("dunning", 0)
        reminded = dunning.remind_unpaid(engine, context)
        cancelled = dunning.cancel_unpaid(engine, context)
        overdue_mails = overdue_tasks.remind_overdue(engine, settings, context)
    progress("mailing", 0)
    mails = send_emails(engine, settings, as_of=context.as_of, run_id=context.run_id)

    done.opened += opened
    done.invoiced += invoiced
    done.settled += settled
    done.held += held_opening + held_settling
    done.expired += expired
    done.records = _added(done.records, records)
    done.quality = _added(done.quality, quality)
    done.mails_sent += mails.sent
    done.mails_failed += mails.failed
    done.mails_retried += mails.retried
    done.mails_dropped += mails.dropped
    done.mails_unknown += mails.unknown
    done.reminded += reminded
    done.overdue_mails += overdue_mails
    done.cancelled_unpaid += cancelled
    # A retried mail waits for its next attempt: it is not a reason for another round.
    return bool(
        opened
        or invoiced
        or settled
        or held_opening
        or held_settling
        or expired
        or reminded
        or cancelled
        or mails.sent
        or mails.failed
        or sum(records.values())
        or sum(quality.values())
    )


def _through(engine: Engine, queue: str, context: Context, progress: Progress) -> tuple[int, int]:
    finished = held = 0
    for batch_id in steps.claim_all(engine, queue, context):
        results = steps.run_batch(engine, queue, batch_id, context)
        finished += results[-1].finished
        held += sum(result.held for result in results)
        progress(queue, results[-1].finished)
        if any(result.passed_over for result in results) and results[-1].finished == 0:
            break  # the same plans would be claimed again and again
    return finished, held


def _added(totals: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {key: totals.get(key, 0) + more.get(key, 0) for key in totals | more}
