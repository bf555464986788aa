"""How long the code location takes to load, as a ratio to ``import dagster`` alone.

``python -m benchmarks.loading [repetitions]`` ends with 1 when the ratio is over 2. Both are timed
in turns, in processes of their own; the smallest of each counts: other work on the machine only
adds.
"""

import subprocess
import sys
from collections.abc import Sequence

LIMIT = 2.0
_TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    """The time that a new Python takes to import a module."""
    timed = [sys.executable, "-c", _TIMED.format(module)]
    return float(subprocess.run(timed, check=True, capture_output=True, text=True).stdout)


def ratio(repetitions: int) -> tuple[float, float, float]:
    """Seconds of ``import dagster``, seconds of the code location, and their ratio."""
    pairs = [
        (seconds("dagster"), seconds("prepaid_pipeline.definitions")) for _ in range(repetitions)
    ]
    alone, whole = (min(column) for column in zip(*pairs, strict=True))
    return alone, whole, whole / alone


def main(arguments: Sequence[str]) -> int:
    """Print the figures; 0 if the ratio is within the limit, 1 if not."""
    alone, whole, times = ratio(int(arguments[0]) if arguments else 5)
    print(f"import dagster {alone:.2f} s, the code location {whole:.2f} s: {times:.2f} times")
    return 0 if times <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
