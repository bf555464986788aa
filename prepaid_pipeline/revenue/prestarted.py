"""Processes that start before they are needed, for work whose libraries take seconds to import.

They take that time, and that memory, while the process that will need them is waiting for the
database, and give both back when they end.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")
# Seconds. A program that forgets to end its processes has them for that long.
_IDLE = 600
_LOOK_SECONDS = 1.0


class Ahead:
    """``processes`` that call ``warm_up`` at once and then wait for work."""

    def __init__(self, warm_up: Callable[[], object], processes: int) -> None:
        # Not multiprocessing: its processes import first the program that started them, all of
        # Dagster in a run that the daemon has launched.
        from loky import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(
            processes, timeout=_IDLE, initializer=_begin_process, initargs=(os.getpid(), warm_up)
        )
        for _ in range(processes):
            self._pool.submit(_begin)

    def map(self, work: Callable[[Given], Result], items: Iterable[Given]) -> Iterator[Result]:
        """What the work gives for each item, in their order. Raises what it raises."""
        results: Iterator[Result] = self._pool.map(work, items)
        return results

    def close(self) -> None:
        """End the processes when they have done what they were given."""
        self._pool.shutdown()


def _begin_process(program: int, warm_up: Callable[[], object]) -> None:
    """In each process: end with the program that started it, which may be killed."""
    threading.Thread(target=_end_with, args=(program,), daemon=True).start()
    warm_up()


def _end_with(program: int) -> None:
    while os.getppid() == program:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _begin() -> None:
    """Nothing: a process starts when it has something to do."""
