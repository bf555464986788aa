"""Runs the rules of ``rules.py`` with Great Expectations and says which rows break them.

Great Expectations takes seconds to import: it is imported when a validation starts, not before, or
ahead of that in a process of its own.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import import_module
from typing import Any

from sqlalchemy import URL, Engine

from prepaid_pipeline.database import queries, urls
from prepaid_pipeline.language.english import plural
from prepaid_pipeline.revenue.prestarted import Ahead
from prepaid_pipeline.revenue.rules import SESSION_SETTINGS, Rule, Suite

SAMPLE_SIZE = 5
# Of a rule that fails everywhere, this many rows tell the months and make the sample.
ROWS_LOOKED_AT = 200
_LIBRARY = "great_expectations"


@dataclass(frozen=True)
class Finding:
    """One rule's outcome. ``months`` are those of the failing rows, ``sample`` shows a few of them:
    their keys and figures, never a name or an address.
    """

    asset: str
    rule: Rule
    passed: bool
    failing: int
    months: tuple[str, ...]
    sample: tuple[dict[str, str], ...]

    @property
    def stops(self) -> bool:
        """True if nothing may be published."""
        return not self.passed and not self.rule.warning

    def __str__(self) -> str:
        rows = plural(self.failing, "row")
        months = f" in {', '.join(self.months)}" if self.months else ""
        return f"{self.asset}: {self.rule.name} fails for {rows}{months}"


_started: Ahead | None = None


def start() -> None:
    """Begin the import ahead of the next validations, in a process that they will use."""
    global _started
    if _started is None and _LIBRARY not in sys.modules:
        _started = Ahead(_import, 1)


def stop() -> None:
    """End the process that ``start`` began; harmless if there is none."""
    global _started
    if _started is not None:
        _started.close()
        _started = None


def validate(database: URL, suites: Sequence[Suite], *, run_id: str, as_of: date) -> list[Finding]:
    """Every rule's outcome, in the order of the suites.

    ``database`` is the URL without a driver. Rules see the staged rows of ``run_id``. Raises
    RuntimeError if a rule cannot be evaluated: that is a broken check and not a failed one.
    """
    if _started is not None:
        work = partial(_validate, database, run_id=run_id, as_of=as_of)
        return next(_started.map(work, [suites]))
    return _validate(database, suites, run_id=run_id, as_of=as_of)


def _validate(database: URL, suites: Sequence[Suite], *, run_id: str, as_of: date) -> list[Finding]:
    session = {"prepaid.run_id": run_id, "prepaid.as_of": as_of.isoformat(), **SESSION_SETTINGS}
    with warnings.catch_warnings():
        # Its own use of deprecated modules is nothing that we could act on.
        warnings.simplefilter("ignore")
        source = _source(_with_session(database, session))
        try:
            return [finding for suite in suites for finding in _findings(source, suite)]
        finally:
            # It keeps two pools: one for tables, one for metrics.
            source.get_execution_engine().engine.dispose()
            source.get_engine().dispose()


def keep(
    engine: Engine, stage: str, findings: Sequence[Finding], *, run_id: str, as_of: date
) -> None:
    """Note what the rules came to, for the reports that are made from what they checked.

    ``stage`` is inputs, figures or report. The same run again replaces what it noted.
    """
    results = [
        {
            "asset": finding.asset,
            "rule": finding.rule.name,
            "place": place,
            "is_warning": finding.rule.warning,
            "passed": finding.passed,
            "failing": finding.failing,
        }
        for place, finding in enumerate(findings)
    ]
    params = {"run_id": run_id, "stage": stage, "as_of": as_of, "results": json.dumps(results)}
    with engine.begin() as connection:
        queries.run(connection, "revenue/check_results", params)


def _with_session(database: URL, session: Mapping[str, str]) -> URL:
    """The connection takes the run and its limits along, so that no rule's SQL is put together."""
    own = urls.pinned(database)
    options = [own.query["options"], *(f"-c{name}={value}" for name, value in session.items())]
    with_options = own.update_query_dict({"options": " ".join(map(str, options))})
    return with_options.set(drivername="postgresql+psycopg")


def _import() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(_LIBRARY)


def _source(database: URL) -> Any:
    gx = _import()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    url = database.render_as_string(hide_password=False)
    return context.data_sources.add_sql(
        # A dollar sign would be taken for a variable of its configuration.
        name="prepaid",
        connection_string=url.replace("$", "%24"),
        create_temp_table=False,
    )


def _findings(source: Any, suite: Suite) -> Iterator[Finding]:
    from great_expectations import expectations

    table = source.add_table_asset(
        name=f"{suite.schema}.{suite.table}", table_name=suite.table, schema_name=suite.schema
    )
    batch = table.add_batch_definition_whole_table("all").get_batch()
    for rule in suite.rules:
        arguments = dict(rule.arguments)
        if rule.query is not None:
            clause = queries.statement(rule.query, rule.name).clause
            arguments["unexpected_rows_query"] = clause.text
        expectation = getattr(expectations, rule.expectation)(**arguments)
        result = batch.validate(expectation, result_format=_result_format(suite, rule))
        _raise_if_broken(rule, result)
        yield _finding(suite, rule, result)


def _result_format(suite: Suite, rule: Rule) -> dict[str, Any]:
    # COMPLETE gives the first 200 rows of a query, but every single value of a column's rule.
    if rule.query is not None:
        return {"result_format": "COMPLETE"}
    return {
        "result_format": "SUMMARY",
        "partial_unexpected_count": ROWS_LOOKED_AT,
        "unexpected_index_column_names": list(suite.keys),
    }


def _raise_if_broken(rule: Rule, result: Any) -> None:
    info = result.exception_info or {}
    # One entry, or one per metric that the expectation is made from.
    for entry in (info, *(value for value in info.values() if isinstance(value, Mapping))):
        if entry.get("raised_exception"):
            raise RuntimeError(
                f"rule {rule.name} cannot be evaluated: {entry['exception_message']}"
            )


def _finding(suite: Suite, rule: Rule, result: Any) -> Finding:
    found = result.result
    if rule.query is not None:
        rows, failing = found["details"]["unexpected_rows"], int(found["observed_value"])
    else:
        # Of a table without rows it counts None.
        rows = found.get("partial_unexpected_index_list") or []
        failing = found["unexpected_count"] or 0
    months = sorted({str(row["month"])[:7] for row in rows if row.get("month") is not None})
    sample = [{key: str(value) for key, value in row.items()} for row in rows[:SAMPLE_SIZE]]
    return Finding(suite.asset, rule, bool(result.success), failing, tuple(months), tuple(sample))
