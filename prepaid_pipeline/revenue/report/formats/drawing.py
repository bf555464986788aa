"""Rendering in processes of their own: what draws takes memory, and never gives it back.

The process that computes and checks the figures stays as small as it is, and a backfill of many
months is drawn on two cores.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.prestarted import Ahead
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from prepaid_pipeline.revenue.report.page import charts

# More would take more memory than most machines have to spare: each needs some 400 MiB.
PROCESSES = 2
# Starting one costs as much as drawing this many reports.
_WORTH_ANOTHER = 8

_started: Ahead | None = None


@dataclass(frozen=True)
class Job:
    """A document to be rendered as ``kinds``, in the language of a locale."""

    document: Mapping[str, Any]
    locale: str
    home: Path
    kinds: tuple[str, ...]

    def run(self) -> dict[str, bytes]:
        """The content of each kind's file."""
        rendering = Rendering(self.document, catalogue.of(self.locale, self.home))
        return {kind: rendering.as_(kind) for kind in self.kinds}


def start() -> None:
    """Start the processes ahead of the next reports, which will be many."""
    global _started
    if _started is None:
        _started = Ahead(charts.warm_up, _processes(PROCESSES * _WORTH_ANOTHER))


def stop() -> None:
    """End the processes that were started, whether they were needed or not."""
    global _started
    if _started is not None:
        _started.close()
        _started = None


def rendered(jobs: Sequence[Job]) -> Iterator[dict[str, bytes]]:
    """What the jobs give, in their order. Raises what a job raises."""
    processes = _processes(len(jobs))
    if not jobs or processes < 1:
        yield from map(Job.run, jobs)
        return
    pool = _started or Ahead(charts.warm_up, processes)
    try:
        yield from pool.map(Job.run, jobs)
    finally:
        if pool is not _started:
            pool.close()


def _processes(reports: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(PROCESSES, cores or 1, 1 + reports // _WORTH_ANOTHER)
