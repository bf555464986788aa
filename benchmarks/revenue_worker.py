"""Steps 12 and 13 in a process of their own, so that its peak memory is the worker's alone.

``python -m benchmarks.revenue_worker DATABASE_URL FIRST_MONTH LAST_MONTH AS_OF`` stages, validates,
publishes and reports, and prints one JSON object: seconds, and mebibytes.
"""

import json
import resource
import sys
import tempfile
import time
from datetime import date

from sqlalchemy import make_url

from benchmarks.worker import MEBIBYTE
from prepaid_pipeline import database, quality, revenue
from prepaid_pipeline.report import files, versions
from prepaid_pipeline.report.store import Store
from prepaid_pipeline.revenue import Span
from prepaid_pipeline.rules import MONTHLY_FIGURES, MONTHLY_REPORT
from prepaid_pipeline.settings import load

RUN_ID, GRACE_DAYS = "benchmark", 7


def main() -> None:
    """Run both steps on the database named on the command line."""
    url, *days = sys.argv[1:]
    span = Span(*(date.fromisoformat(day) for day in days))
    engine = database.engine_for(make_url(url))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        revenue.stage(engine, span, RUN_ID)
        found = quality.validate(make_url(url), MONTHLY_FIGURES, run_id=RUN_ID, as_of=span.as_of)
        revenue.publish(engine, RUN_ID)
        versions.stage(engine, span, RUN_ID)
        found += quality.validate(make_url(url), MONTHLY_REPORT, run_id=RUN_ID, as_of=span.as_of)
        versions.publish(engine, span, RUN_ID, GRACE_DAYS)
        settings = load({"PREPAID_HOME": folder})
        files.write(engine, settings, Store.of(settings), span.first_month, span.last_month)
    seconds = time.perf_counter() - start
    failed = [str(finding) for finding in found if not finding.passed]
    if failed:
        sys.exit("\n".join(failed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    print(json.dumps({"seconds": seconds, "mebibytes": peak}))


if __name__ == "__main__":
    main()
