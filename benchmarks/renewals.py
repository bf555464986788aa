"""Plans per second through open_renewals and settle_renewals, beside a plain SQL script.

``python -m benchmarks.renewals [--plans 1000 10000 100000]`` prints a table and the limits, and
ends with 1 when a limit is broken. Both sides start from copies of one database and must leave the
same rows behind.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL

from benchmarks import databases, sides

Seconds = dict[str, float]

MEASURED = ("open_renewals", "settle_renewals")
# At least half the plain script's rate; a plan among 100,000 costs at most 1.2 times one among
# 10,000; memory does not grow with the batches.
LOWEST_RATIO, LIMIT_FROM = 0.5, 100_000
HIGHEST_GROWTH, GROWTH_FROM = 1.2, 10_000
HIGHEST_MEBIBYTES = 300
# A size that takes seconds is measured three times and the middle one counts: whatever else the
# machine does at that moment weighs more there than in the minutes of 100,000 plans.
ROUNDS, ROUNDS_UP_TO = 3, 10_000


@dataclass(frozen=True)
class Measured:
    """One size: seconds per job on either side, and the worker's peak memory in MiB."""

    plans: int
    pipeline: Seconds
    plain: Seconds
    mebibytes: float

    def rate(self, job: str | None = None) -> float:
        """The pipeline's plans per second, of one job or of both together."""
        return self.plans / _sum(self.pipeline, job)

    def ratio(self, job: str | None = None) -> float:
        """The pipeline's rate as a part of the plain script's."""
        return _sum(self.plain, job) / _sum(self.pipeline, job)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sizes; 0 if every limit holds, 1 if one is broken or the rows differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.renewals", description=__doc__)
    parser.add_argument("--plans", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    sizes = sorted(parser.parse_args(arguments).plans)
    with databases.embedded_server() as empty:
        measured = [_median_of_rounds(empty, plans) for plans in sizes]
    _print_table(measured)
    verdicts = limits(measured)
    for holds, sentence in verdicts:
        print(f"{'ok    ' if holds else 'BROKEN'}  {sentence}")
    return 0 if all(holds for holds, _ in verdicts) else 1


def measure(empty: URL, plans: int) -> Measured:
    """Both sides on copies of a database with ``plans`` due plans, job by job in turns."""
    ours, by_hand, peak = Seconds(), Seconds(), 0.0
    with databases.copied(empty, f"due_{plans}") as due:
        with databases.connected(due) as engine:
            sides.prepare(engine, plans)
        with (
            databases.copied(due, "plain") as plain,
            databases.copied(due, "pipeline") as pipeline,
            databases.connected(plain) as engine,
            _worker(pipeline) as ask,
        ):
            for job in sides.JOBS:
                databases.settle(due)
                by_hand[job] = sides.plain(engine, job, plans)
                databases.settle(due)
                ours[job], peak = ask(job)
            _require_same_rows(plain, pipeline)
    return Measured(plans, ours, by_hand, peak)


def _median_of_rounds(empty: URL, plans: int) -> Measured:
    rounds = [measure(empty, plans) for _ in range(ROUNDS if plans <= ROUNDS_UP_TO else 1)]
    return sorted(rounds, key=Measured.rate)[len(rounds) // 2]


def limits(measured: list[Measured]) -> list[tuple[bool, str]]:
    """Which limits hold, each with a sentence; sizes that were not asked for are left out."""
    found = {m.plans: m for m in measured}
    verdicts = [
        (
            m.ratio(job) >= LOWEST_RATIO,
            f"{m.plans} plans, {job or 'both'}: {m.ratio(job):.2f} of the plain script's rate"
            f" (at least {LOWEST_RATIO})",
        )
        for m in measured
        if m.plans >= LIMIT_FROM
        for job in (*MEASURED, None)
    ]
    if GROWTH_FROM in found and LIMIT_FROM in found:
        growth = found[GROWTH_FROM].rate() / found[LIMIT_FROM].rate()
        sentence = f"a plan among {LIMIT_FROM} costs {growth:.2f} times one among {GROWTH_FROM}"
        verdicts.append((growth <= HIGHEST_GROWTH, f"{sentence} (at most {HIGHEST_GROWTH})"))
    peak = max(m.mebibytes for m in measured)
    sentence = f"the worker's peak memory is {peak:.0f} MiB (below {HIGHEST_MEBIBYTES})"
    return [*verdicts, (peak < HIGHEST_MEBIBYTES, sentence)]


@contextmanager
def _worker(database: URL) -> Iterator[Callable[[str], tuple[float, float]]]:
    """A process that takes jobs; asked for one, it gives seconds and peak memory so far."""
    url = database.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks.worker", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def ask(job: str) -> tuple[float, float]:
            print(job, file=requests, flush=True)
            if not (line := answers.readline()):
                raise SystemExit("The worker failed; what it said is above.")
            answer = json.loads(line)
            return answer["seconds"], answer["mebibytes"]

        yield ask
        requests.close()


def _require_same_rows(by_hand: URL, ours: URL) -> None:
    (totals,) = sides.script("totals")
    found = []
    for url in (by_hand, ours):
        with databases.connected(url) as engine, engine.connect() as connection:
            found.append({tuple(row) for row in totals.execute(connection, {})})
    if found[0] != found[1]:
        raise SystemExit(
            "The two sides have not written the same rows.\n"
            f"Only the plain script: {sorted(found[0] - found[1], key=str)}\n"
            f"Only the pipeline: {sorted(found[1] - found[0], key=str)}"
        )


def _sum(seconds: Seconds, job: str | None) -> float:
    return sum(seconds[name] for name in (MEASURED if job is None else (job,)))


def _print_table(measured: list[Measured]) -> None:
    print(f"{'due plans':>9}  {'job':<16}{'plans/s':>9}{'plain SQL':>11}{'ratio':>7}{'MiB':>6}")
    for m in measured:
        for job in (*m.pipeline, None):
            rate, name = m.rate(job), job or "open and settle"
            print(
                f"{m.plans:>9}  {name:<16}{rate:>9.0f}{rate / m.ratio(job):>11.0f}"
                f"{m.ratio(job):>7.2f}{m.mebibytes:>6.0f}"
            )


if __name__ == "__main__":
    sys.exit(main())
