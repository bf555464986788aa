"""Matching: each new payment record gets its outcome."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline import logs
from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries
from prepaid_pipeline.database.halving import halving, is_of_data

log = logging.getLogger(__name__)

_COLLECT = "billing/payment_matching/1_collect"
_JUDGE = "billing/payment_matching/2_judge"
_MATCH = "billing/payment_matching/3_match"
_FOLLOW_UP = "billing/payment_matching/4_follow_up"
_SET_APART = "billing/payment_matching/set_apart"


def match_payments(engine: Engine, context: Context) -> dict[str, int]:
    """Give each new payment record its outcome; outcome -> how many records have got it.

    Records that were judged before and belong together with a new one are judged again with it.
    """
    totals = dict.fromkeys(("matched", "parked", "superseded", "waiting"), 0)
    while True:
        try:
            with transaction(engine, context) as connection:
                outcomes = match_batch(connection, context.parameters())
        except DBAPIError as error:
            if not is_of_data(error):
                raise
            outcomes = _without_what_breaks_it(engine, context)
        if outcomes is None:
            return totals
        for outcome, records in outcomes.items():
            totals[outcome] += records


def match_batch(connection: Connection, params: Mapping[str, Any]) -> dict[str, int] | None:
    """Match up to ``limit`` new records and all that belong together with them, in the caller's
    transaction: outcome -> how many records have got it, or None when there is no new record.

    With ``records`` (a bigint[] in PostgreSQL's form) of the new ones only those, as if the others
    had not come yet.
    """
    one_at_a_time(connection)
    params = {"records": None, **params}
    queries.statement(_COLLECT, "connected").execute(connection, params)
    if queries.statement(_COLLECT, "collect").execute(connection, params).rowcount == 0:
        return None
    queries.run(connection, _JUDGE, params)
    outcomes = _match(connection, params)
    queries.run(connection, _FOLLOW_UP, params)
    return outcomes


def one_at_a_time(connection: Connection) -> None:
    """Wait until nobody else matches; others wait until the end of the transaction."""
    queries.statement(_COLLECT, "one_matcher_at_a_time").execute(connection, {})


def _match(connection: Connection, params: Mapping[str, Any]) -> dict[str, int]:
    queries.statement(_MATCH, "keep_paid").execute(connection, params)
    queries.statement(_MATCH, "match_assigned").execute(connection, params)
    match_next = queries.statement(_MATCH, "match_next")
    while match_next.execute(connection, params).rowcount:
        pass  # Each round may free a record that stood behind another one.
    queries.statement(_MATCH, "match_parts").execute(connection, params)
    queries.statement(_MATCH, "park_the_rest").execute(connection, params)
    queries.statement(_MATCH, "one_matter_per_invoice").execute(connection, params)
    decided = queries.statement(_MATCH, "decide").execute(connection, params)
    return {row.outcome: row.records for row in decided}


def _without_what_breaks_it(engine: Engine, context: Context) -> Counter[str]:
    """A batch in which judging fails: what can be judged is, what cannot is parked by itself."""
    params = context.parameters()
    with engine.connect() as connection:
        undecided = queries.statement(_SET_APART, "undecided").execute(connection, params)
        found: str | None = undecided.scalar_one()

    def attempt(records: list[int]) -> Counter[str]:
        with transaction(engine, context) as connection:
            asked = params | {"records": _array(records)}
            return Counter(match_batch(connection, asked) or {})

    def alone(records: list[int], reason: str) -> Counter[str]:
        # Not the reason: the database quotes what it refuses. The record has it.
        logs.event(
            log,
            "record set apart",
            logging.WARNING,
            transaction_id=records[0],
            run_id=context.run_id,
        )
        with transaction(engine, context) as connection:
            one_at_a_time(connection)
            queries.run(
                connection, _SET_APART, params | {"records": _array(records), "reason": reason}
            )
        return Counter(parked=1)

    return halving(
        attempt, alone, [int(record) for record in (found or "").strip("{}").split(",") if record]
    )


def _array(ids: list[int]) -> str:
    """A bigint[] in PostgreSQL's own form."""
    return "{" + ",".join(map(str, ids)) + "}"
