"""What a test of a fault found, as one JSON line; ``make reliability`` prints them all."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime

FIGURES = "PREPAID_FAULT_FIGURES"


class Recorder:
    """``record(fault=3, what="refused, 421, 550", points=40, violations=0, seed=7)``.

    ``fault`` is the number of docs/reliability.md, ``what`` its column "what was done" (one line of
    Markdown), ``points`` how often the fault was made, ``violations`` how often anything was wrong
    afterwards. The seconds count from the test's begin. Record first, assert then: a violation must
    be in the figures too.
    """

    def __init__(self, test: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._test = test
        self._clock = clock
        self._started = clock()

    def __call__(
        self, *, fault: int, what: str, points: int, violations: int, seed: int | None = None
    ) -> None:
        """Append the figures to the file that the environment names; without one, do nothing."""
        path = os.environ.get(FIGURES)
        if not path:
            return
        line = {
            "fault": fault,
            "what": what,
            "points": points,
            "violations": violations,
            "seed": seed,
            "seconds": round(self._clock() - self._started, 1),
            "test": self._test,
            "on": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{os.cpu_count()} processors, Python {platform.python_version()}",
        }
        with open(path, "a", encoding="utf-8") as figures:
            # Several test processes write to it.
            fcntl.flock(figures, fcntl.LOCK_EX)
            figures.write(json.dumps(line) + "\n")
