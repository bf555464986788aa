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
from prepaid_pipeline.database import connections
from prepaid_pipeline.revenue import figures, validation
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.revenue.report.formats import files
from prepaid_pipeline.revenue.rules import MONTHLY_FIGURES, MONTHLY_REPORT
from prepaid_pipeline.settings.load import load
from prepaid_pipeline.storage import Store

RUN_ID, GRACE_DAYS = "benchmark", 7


def main() -> None:
    """Run both steps on the database named on the command line."""
    url, *days = sys.argv[1:]
    span = Span(*(date.fromisoformat(day) for day in days))
    engine = connections.engine_for(make_url(url))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures.stage(engine, span, RUN_ID)
        found = validation.validate(make_url(url), MONTHLY_FIGURES, run_id=RUN_ID, as_of=span.as_of)
        figures.publish(engine, RUN_ID)
        versions.stage(engine, span, RUN_ID)
        found += validation.validate(make_url(url), MONTHLY_REPORT, run_id=RUN_ID, as_of=span.as_of)
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
