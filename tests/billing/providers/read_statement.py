"""Reads a small and then a large statement; prints what the large one took more, in MiB.

Run as a program of its own: the peak memory of a process never goes down.
"""

import resource
import sys
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

from prepaid_pipeline.billing.providers import camt053
from prepaid_pipeline.billing.providers.records import Source
from prepaid_pipeline.importer.reports import Problems
from tests.billing.providers.statements import entry, statement


def lines(entries: int) -> Iterator[str]:
    start, end = statement("CUT").split("CUT")
    yield start
    for number in range(entries):
        yield entry(f"R{number}", text=f"INV-2026-{number + 1:06}") + "\n"
    yield end


def peak(path: Path, entries: int) -> float:
    with path.open("w") as file:
        file.writelines(lines(entries))
    source = Source(path, None, UTC, Problems(path.name), lambda _: None)
    read = sum(1 for _ in camt053.read(source))
    assert (read, source.problems.messages()) == (entries, [])
    path.unlink()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    file, entries = Path(sys.argv[1]), int(sys.argv[2])
    small = peak(file, 1000)
    print(peak(file, entries) - small)  # noqa: T201
