"""A statement over many rows that the data of one breaks: they are halved until it is alone."""

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database.connections import sqlstate

# Errors of one row's data: data exceptions, integrity violations, and what our triggers raise.
# All others (connection lost, deadlock, disk full, a fault in our SQL) are no row's fault.
_DATA_ERRORS = ("22", "23", "P0")


class Result(Protocol):
    """What is done with some rows, to be added to what is done with others."""

    def __add__(self, other: Any, /) -> Self:
        """Both together."""


def is_of_data(error: DBAPIError) -> bool:
    """Whether the data of some row is at fault, and the other rows can go on without it."""
    return sqlstate(error).startswith(_DATA_ERRORS)


S = TypeVar("S", range, list[int])
T = TypeVar("T", bound=Result)


def halving(attempt: Callable[[S], T], alone: Callable[[S, str], T], rows: S) -> T:
    """``attempt`` on rows; when the data of one breaks it, on halves, until that one is ``alone``.

    ``alone`` is given the row and the first line of what the database said. Both results are added
    up. Raises what is no row's fault.
    """
    try:
        return attempt(rows)
    except DBAPIError as error:
        if not is_of_data(error):
            raise
        if len(rows) <= 1:
            return alone(rows, str(error.orig).splitlines()[0])
    middle = len(rows) // 2
    return halving(attempt, alone, rows[:middle]) + halving(attempt, alone, rows[middle:])
