"""The pipeline's side in a process of its own, so that its peak memory is the worker's alone.

``python -m benchmarks.worker DATABASE_URL`` takes the name of a job per line, does it, and answers
with a line of JSON: its seconds, and the peak memory so far in MiB.
"""

import json
import resource
import sys

from sqlalchemy import make_url

from benchmarks import sides
from prepaid_pipeline.database import connections

# ru_maxrss counts bytes on macOS, kibibytes elsewhere.
MEBIBYTE = 1024 * 1024 if sys.platform == "darwin" else 1024


def main() -> None:
    """Do the jobs that standard input names."""
    engine = connections.engine_for(make_url(sys.argv[1]))
    for line in sys.stdin:
        seconds = sides.pipeline(engine, line.strip())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
        print(json.dumps({"seconds": seconds, "mebibytes": peak}), flush=True)


if __name__ == "__main__":
    main()
