"""What must hold for the figures of any history: computed, looked at and rolled back."""

from datetime import date
from decimal import Decimal

from sqlalchemy import Engine, text

from prepaid_pipeline.revenue import figures
from prepaid_pipeline.revenue.figures import Span

RUN = "sums"
_BROKEN = {
    "deferred revenue rolls forward": "SELECT * FROM revenue.deferred_revenue_staging"
    " WHERE opening + billed - recognised - refunded <> closing OR closing < 0",
    "what is owed term by term": "SELECT currency, c.deferred, d.closing FROM revenue.retention_control_staging c"
    " FULL JOIN (SELECT * FROM revenue.deferred_revenue_staging WHERE month = :last) d"
    " USING (currency) WHERE coalesce(c.deferred, 0) <> coalesce(d.closing, 0)",
    "terms that ended one by one": "SELECT currency, c.ended, d.due FROM (SELECT * FROM revenue.retention_control_staging"
    " WHERE ended > 0) c FULL JOIN (SELECT currency, sum(due) AS due"
    " FROM revenue.renewal_outcomes_staging GROUP BY currency) d USING (currency)"
    " WHERE ended IS DISTINCT FROM due",
    "reconciled to the invoices and to cash": "SELECT month, currency, line, amount FROM revenue.reconciliation_staging"
    " WHERE line LIKE '%remainder' AND amount <> 0",
    "retention is at most all": "SELECT * FROM revenue.retention_staging WHERE customers_kept > customers_before"
    " OR mrr_kept > mrr_before OR mrr_kept > mrr_now",
    "cohorts are all customers": "SELECT month, currency, c.customers, b.closing_customers, c.mrr, b.closing_mrr"
    " FROM (SELECT month, currency, sum(customers_kept) AS customers, sum(mrr_now) AS mrr"
    " FROM revenue.cohorts_staging GROUP BY 1, 2) c"
    " FULL JOIN revenue.mrr_bridge_staging b USING (month, currency)"
    " WHERE coalesce(c.customers, 0) <> coalesce(b.closing_customers, 0)"
    " OR coalesce(c.mrr, 0) <> coalesce(b.closing_mrr, 0)",
}


def broken(engine: Engine, first_month: date, as_of: date) -> dict[str, list[tuple[object, ...]]]:
    """The sums that do not hold for the months from ``first_month`` to that of ``as_of``."""
    span = Span(first_month, as_of.replace(day=1), as_of)
    found = {}
    with engine.connect() as connection:
        figures.compute(connection, span, RUN)
        for what, query in _BROKEN.items():
            rows = connection.execute(text(query), {"last": span.last_month}).all()
            if rows:
                found[what] = [tuple(row) for row in rows]
        connection.rollback()
    return found


def lines(engine: Engine, month: date, as_of: date, currency: str = "USD") -> dict[str, Decimal]:
    """The reconciliation of one month: what is not 0 of it."""
    with engine.connect() as connection:
        figures.compute(connection, Span(month, month, as_of), RUN)
        found = connection.execute(
            text(
                "SELECT line, amount FROM revenue.reconciliation_staging"
                " WHERE currency = :currency AND amount <> 0"
            ),
            {"currency": currency},
        ).all()
        connection.rollback()
    return {row.line: row.amount for row in found}


def deferred(engine: Engine, first_month: date, as_of: date) -> list[tuple[object, ...]]:
    """month, opening, billed, recognised, refunded, closing of the months with any of it."""
    with engine.connect() as connection:
        figures.compute(connection, Span(first_month, as_of.replace(day=1), as_of), RUN)
        found = connection.execute(
            text(
                "SELECT month, opening, billed, recognised, refunded, closing"
                " FROM revenue.deferred_revenue_staging ORDER BY month"
            )
        ).all()
        connection.rollback()
    return [tuple(row) for row in found]
