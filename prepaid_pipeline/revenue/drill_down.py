"""From a month's figure to the service plans behind it; what each figure means: docs/revenue.md.

The rows come from functions of the schema ``revenue``, which people with an SQL tool can call.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import UnknownThing

_SQL = "revenue/drill_down"
# Rows on their way from the database at a time: memory does not grow with the number of plans.
_ROWS_AT_A_TIME = 2000


@dataclass(frozen=True)
class Figure:
    """What one can ask for. ``only`` are the filters other than currency, plan and country that it
    takes; ``split`` those by which it is published, one of a tuple at a time; ``counted`` says what
    the published count is of.
    """

    name: str
    counted: str
    only: tuple[str, ...] = ()
    split: tuple[tuple[str, ...], ...] = ()


FIGURES = {
    "mrr": Figure("mrr", "plans", split=(("plan",), ("country",))),
    "movements": Figure("movements", "customers", only=("movement",), split=(("movement",),)),
    "activations": Figure(
        "activations", "plans", only=("kind",), split=(("plan", "kind"), ("country", "kind"))
    ),
    "credit-notes": Figure("credit_notes", "credit notes"),
}


@dataclass
class Total:
    """What the rows of one currency come to, exactly, with the published figure and its count;
    None if none is published for what was asked. ``customers`` is None where rows are counted.
    """

    currency: str
    exponent: int
    published: Decimal | None
    published_count: int | None
    customers: set[str] | None
    amount: Decimal = Decimal(0)
    rows: int = 0

    @property
    def count(self) -> int:
        """Rows, or different customers where those are what is published."""
        return self.rows if self.customers is None else len(self.customers)

    @property
    def differs(self) -> bool:
        """Whether the terms have changed since the figures were computed."""
        return self.published is not None and (
            (self.published, self.published_count) != (self.amount, self.count)
        )

    def add(self, row: Mapping[str, Any]) -> None:
        self.amount += row["amount"]
        self.rows += 1
        if self.customers is not None:
            self.customers.add(row["customer_ref"])


class Totals(dict[str, Total]):
    """Totals by currency. A figure that is published is 0 in a currency that has no row of it."""

    def __init__(self, figure: Figure, exponents: Mapping[str, int], *, published: bool) -> None:
        super().__init__()
        self._figure, self._exponents, self._published = figure, exponents, published

    def __missing__(self, currency: str) -> Total:
        self[currency] = Total(
            currency,
            self._exponents[currency],
            Decimal(0) if self._published else None,
            0 if self._published else None,
            set() if self._figure.counted == "customers" else None,
        )
        return self[currency]


@dataclass
class Behind:
    """The plans behind a figure: ``rows`` can be gone through once, ``totals`` are known then.

    Amounts are Decimals, not rounded; the country that a term does not say is ''. ``as_of`` is the
    day as of which the month's figures were computed.
    """

    as_of: date
    columns: tuple[str, ...]
    rows: Iterator[dict[str, Any]]
    totals: Totals


@contextmanager
def behind(
    engine: Engine, figure: str, month: date, filters: Mapping[str, str | None]
) -> Iterator[Behind]:
    """The service plans behind a figure of the month (its first day), while the block lasts.

    ``filters`` has currency, plan, country, movement and kind; None: all of them. Raises
    UnknownThing for a month without figures.
    """
    asked = FIGURES[figure]
    params = {"month": month, **filters}
    isolated = engine.execution_options(isolation_level="REPEATABLE READ")
    with isolated.connect() as connection:
        as_of = queries.statement(_SQL, "as_of").execute(connection, params).scalar()
        if as_of is None:
            raise UnknownThing(
                f"there are no figures for {month:%Y-%m}: run 'prepaid backfill {month:%Y-%m}"
                f" {month:%Y-%m}'"
            )
        totals = _totals(connection, asked, params)
        connection.execution_options(yield_per=_ROWS_AT_A_TIME)
        with closing(queries.statement(_SQL, asked.name).execute(connection, params)) as found:
            yield Behind(as_of, tuple(found.keys()), _counted(found, totals), totals)


def _counted(found: CursorResult[Any], totals: Totals) -> Iterator[dict[str, Any]]:
    for row in map(dict[str, Any], found.mappings()):
        totals[row["currency"]].add(row)
        yield row


def _totals(connection: Connection, asked: Figure, params: Mapping[str, Any]) -> Totals:
    exponents = queries.statement(_SQL, "exponents").execute(connection, {})
    given = {name for name, value in params.items() if value is not None} - {"month", "currency"}
    is_published = not given or any(given <= set(split) for split in asked.split)
    totals = Totals(
        asked, {row.currency: row.exponent for row in exponents}, published=is_published
    )
    if is_published:
        published = queries.statement(_SQL, f"published_{asked.name}")
        for row in published.execute(connection, params).mappings():
            total = totals[row["currency"]]
            total.published, total.published_count = row["amount"], row["count"]
    return totals
