"""The revenue SQL over 36 months, beside a plain running sum and a plain window query.

``python -m benchmarks.revenue [--terms 1000000 …] [--rounds 3]`` prints a table and the limits, and
ends with 1 when a limit is broken. All queries run in turns on the same terms; the best of each
counts, as other work on the machine only adds.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import URL, Connection, Engine

from benchmarks import databases, revenue_worker
from benchmarks.sides import script
from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue.figures import STAGES

FIRST_MONTH, LAST_MONTH, AS_OF = date(2023, 11, 1), date(2026, 10, 1), date(2026, 10, 31)
TERMS_PER_CUSTOMER = 10
ROUNDS = 3
# All figures together may take this many times as long as the two plain queries, a running sum
# and a window: they are MRR and activations by plan and by country, movements, renewals, retention,
# cohorts, deferred revenue and its reconciliation, of which five look at every term once more.
HIGHEST_RATIO = 8.0
# And a term among the most may cost this many times one among the fewest.
HIGHEST_GROWTH = 1.3
PLAIN = ("running_sum", "window")
HIGHEST_MEBIBYTES = 500
_PARAMS = {
    "run_id": "benchmark",
    "first_month": FIRST_MONTH,
    "last_month": LAST_MONTH,
    "as_of": AS_OF,
    "until": AS_OF,
}


@dataclass(frozen=True)
class Measured:
    """One size: the best seconds of each statement, and the worker's seconds and peak memory."""

    terms: int
    seconds: dict[str, float]
    worker_seconds: float
    mebibytes: float

    @property
    def plain(self) -> float:
        """Seconds of the plain queries."""
        return sum(self.seconds[name] for name in PLAIN)

    @property
    def ours(self) -> float:
        """Seconds of all statements that stage figures."""
        return sum(seconds for name, seconds in self.seconds.items() if name not in PLAIN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sizes; 0 if every limit holds, 1 if one is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.revenue", description=__doc__)
    parser.add_argument("--terms", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args(arguments)
    measured = [_measure(terms, asked.rounds) for terms in sorted(asked.terms)]
    _print_table(measured)
    verdicts = limits(measured)
    for holds, sentence in verdicts:
        print(f"{'ok    ' if holds else 'BROKEN'}  {sentence}")
    return 0 if all(holds for holds, _ in verdicts) else 1


def limits(measured: Sequence[Measured]) -> list[tuple[bool, str]]:
    """Each limit: whether it holds, and the sentence that says so."""
    found = []
    for size in measured:
        ratio = size.ours / size.plain
        found.append(
            (
                ratio <= HIGHEST_RATIO,
                f"{size.terms:,} terms: the figures take {ratio:.2f} times a plain running"
                f" sum and window query, at most {HIGHEST_RATIO:.0f}",
            )
        )
        found.append(
            (
                size.mebibytes <= HIGHEST_MEBIBYTES,
                f"{size.terms:,} terms: the worker needs {size.mebibytes:.0f} MiB, at most"
                f" {HIGHEST_MEBIBYTES}",
            )
        )
    fewest, most = measured[0], measured[-1]
    if most.terms > fewest.terms:
        growth = (most.ours / most.terms) / (fewest.ours / fewest.terms)
        found.append(
            (
                growth <= HIGHEST_GROWTH,
                f"a term among {most.terms:,} costs {growth:.2f} times one among"
                f" {fewest.terms:,}, at most {HIGHEST_GROWTH}",
            )
        )
    return found


def _measure(terms: int, rounds: int) -> Measured:
    with databases.embedded_server() as url:
        with databases.connected(url) as engine:
            _generate(engine, terms // TERMS_PER_CUSTOMER)
            best: dict[str, float] = {}
            for _ in range(rounds):
                for name, seconds in _round(engine).items():
                    best[name] = min(seconds, best.get(name, seconds))
        worker = _worker(url)
    return Measured(terms, best, worker["seconds"], worker["mebibytes"])


def _generate(engine: Engine, customers: int) -> None:
    with engine.begin() as connection:
        for part in script("revenue_terms"):
            part.execute(connection, {"customers": customers})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Hint bits are set once, here, and not by whichever query happens to be first.
        connection.exec_driver_sql("VACUUM prepaid.service_plans")


def _round(engine: Engine) -> dict[str, float]:
    """Every query once; what was staged is rolled back."""
    seconds = {}
    with engine.connect() as connection:
        for part in script("revenue_plain"):
            seconds[part.name] = _timed(connection, part)
        for stage in STAGES:
            for part in queries.script(stage):
                seconds[part.name] = _timed(connection, part)
        connection.rollback()
    return seconds


def _timed(connection: Connection, part: queries.Statement) -> float:
    start = time.perf_counter()
    result = part.execute(connection, _PARAMS)
    if result.returns_rows:
        result.all()
    return time.perf_counter() - start


def _worker(url: URL) -> dict[str, float]:
    command = [sys.executable, "-m", revenue_worker.__name__]
    months = [day.isoformat() for day in (FIRST_MONTH, LAST_MONTH, AS_OF)]
    shown = url.render_as_string(hide_password=False)
    done = subprocess.run([*command, shown, *months], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _print_table(measured: Sequence[Measured]) -> None:
    for size in measured:
        print(f"{size.terms:,} terms, 36 months")
        for name, seconds in size.seconds.items():
            print(f"  {name:29}{seconds:8.2f} s{seconds / size.terms * 1e6:8.2f} s per million")
        print(f"  {'all figures':29}{size.ours:8.2f} s; plain queries {size.plain:.2f} s")
        print(
            f"  {'stage to report':29}{size.worker_seconds:8.2f} s in all, with validation;"
            f" peak {size.mebibytes:.0f} MiB"
        )


if __name__ == "__main__":
    sys.exit(main())
