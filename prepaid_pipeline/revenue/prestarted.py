"""Processes that start before they are needed, for work whose libraries take seconds to import.

They take that time, and that memory, while the process that will need them is waiting for the
database, and give both back when they end.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")
# Seconds. The processes of a program that was killed find out that nothing more will come.
_IDLE = 600


class Ahead:
    """``processes`` that call ``warm_up`` at once and then wait for work."""

    def __init__(self, warm_up: Callable[[], object], processes: int) -> None:
        # Not multiprocessing: its processes import first the program that started them, all of
        # Dagster in a run that the daemon has launched.
        from loky import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(processes, timeout=_IDLE, initializer=warm_up)
        for _ in range(processes):
            self._pool.submit(_begin)

    def map(self, work: Callable[[Given], Result], items: Iterable[Given]) -> Iterator[Result]:
        """What the work gives for each item, in their order. Raises what it raises."""
        results: Iterator[Result] = self._pool.map(work, items)
        return results

    def close(self) -> None:
        """End the processes when they have done what they were given."""
        self._pool.shutdown()


def _begin() -> None:
    """Nothing: a process starts when it has something to do."""
