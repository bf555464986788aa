"""Matching: each new payment record gets its outcome."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine

from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries

_COLLECT = "billing/payment_matching/1_collect"
_JUDGE = "billing/payment_matching/2_judge"
_MATCH = "billing/payment_matching/3_match"
_FOLLOW_UP = "billing/payment_matching/4_follow_up"


def match_payments(engine: Engine, context: Context) -> dict[str, int]:
    """Give each new payment record its outcome; outcome -> how many records have got it.

    Records that were judged before and belong together with a new one are judged again with it.
    """
    totals = dict.fromkeys(("matched", "parked", "superseded", "waiting"), 0)
    while True:
        with transaction(engine, context) as connection:
            outcomes = match_batch(connection, context.parameters())
        if outcomes is None:
            return totals
        for outcome, records in outcomes.items():
            totals[outcome] += records


def match_batch(connection: Connection, params: Mapping[str, Any]) -> dict[str, int] | None:
    """Match up to ``limit`` new records and all that belong together with them, in the caller's
    transaction: outcome -> how many records have got it, or None when there is no new record.
    """
    one_at_a_time(connection)
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
