"""Processes that start before they are needed, for work whose libraries take seconds to import.

They take that time, and that memory, while the process that will need them is waiting for the
database, and give both back when they end.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


class Ahead:
    """``processes`` that call ``warm_up`` at once and then wait for work."""

    def __init__(self, warm_up: Callable[[], None], processes: int) -> None:
        # Not forked: this process may have threads and database connections.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, initializer=warm_up)
        for _ in range(processes):
            self._pool.submit(_begin)

    def map(self, work: Callable[[Given], Result], items: Iterable[Given]) -> Iterator[Result]:
        """What the work gives for each item, in their order. Raises what it raises."""
        return self._pool.map(work, items)

    def close(self) -> None:
        """End the processes when they have done what they were given."""
        self._pool.shutdown()


def _begin() -> None:
    """Nothing: a process starts when it has something to do."""
