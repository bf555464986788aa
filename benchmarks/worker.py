"""The pipeline's side in a process of its own, so that its peak memory is the worker's alone.

``python -m benchmarks.worker DATABASE_URL`` prints one JSON object: seconds per job, and mebibytes.
"""

import json
import resource
import sys

from sqlalchemy import make_url

from benchmarks import sides
from prepaid_pipeline import database

# ru_maxrss counts bytes on macOS, kibibytes elsewhere.
MEBIBYTE = 1024 * 1024 if sys.platform == "darwin" else 1024


def main() -> None:
    """Run the pipeline's side on the database named on the command line."""
    engine = database.engine_for(make_url(sys.argv[1]))
    seconds = sides.pipeline(engine)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    print(json.dumps({"seconds": seconds, "mebibytes": peak}))


if __name__ == "__main__":
    main()
