"""Matching: each landed payment record gets its outcome."""

from sqlalchemy import Engine

from prepaid_pipeline.context import Context, transaction
from prepaid_pipeline.database import queries


def match_payments(engine: Engine, context: Context) -> dict[str, int]:
    """Give each landed payment record its outcome; outcome -> how many records have got it.

    Records that were judged before and hang together with a landed one are judged anew with it.
    """
    totals = dict.fromkeys(("matched", "parked", "superseded", "waiting"), 0)
    while True:
        outcomes: dict[str, int] = {}
        with transaction(engine, context) as connection:
            for statement in queries.script("billing/payment_matching"):
                result = statement.execute(connection, context.parameters())
                if statement.name == "collect" and result.rowcount == 0:
                    return totals
                if statement.name == "match_next":
                    while result.rowcount:
                        result = statement.execute(connection, {})
                if statement.name == "decide":
                    outcomes = {row.outcome: row.records for row in result}
        for outcome, records in outcomes.items():
            totals[outcome] += records
