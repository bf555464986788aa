"""Rendering in processes of their own: what draws takes memory, and never gives it back.

The process that computes and checks the figures stays as small as it is, and a backfill of many
months is drawn on two cores.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepaid_pipeline.report import language
from prepaid_pipeline.report.rendering import Rendering

# More would take more memory than most machines have to spare: each needs some 250 MiB.
PROCESSES = 2
# Starting one costs as much as drawing this many reports.
_WORTH_ANOTHER = 8


@dataclass(frozen=True)
class Job:
    """A document to be rendered as ``kinds``, in the language of a locale."""

    document: Mapping[str, Any]
    locale: str
    home: Path
    kinds: tuple[str, ...]

    def run(self) -> dict[str, bytes]:
        """The content of each kind's file."""
        rendering = Rendering(self.document, language.of(self.locale, self.home))
        return {kind: rendering.as_(kind) for kind in self.kinds}


def rendered(jobs: Sequence[Job]) -> Iterator[dict[str, bytes]]:
    """What the jobs give, in their order. Raises what a job raises."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = min(PROCESSES, cores or 1, 1 + len(jobs) // _WORTH_ANOTHER)
    if not jobs or processes < 1:
        yield from map(Job.run, jobs)
        return
    # Not forked: this process may have threads and database connections.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        yield from pool.map(Job.run, jobs)
