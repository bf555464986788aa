"""What a materialisation shows of its months: a table, and numbers that Dagster can plot."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from prepaid_pipeline.orchestration.partitions import month_of
from prepaid_pipeline.orchestration.resources import Database
from prepaid_pipeline.process import window
from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.rules import FIGURES_HOURS, KINDS

# The current month is computed again every hour.
FRESH = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=FIGURES_HOURS), warn_window=timedelta(hours=FIGURES_HOURS - 1)
)
_COLUMNS = (
    "month",
    "currency",
    "MRR",
    "change",
    "active plans",
    "new",
    "renewals",
    "reactivations",
    "plan changes",
    "reversed",
    "credit notes",
)


class BusinessDay(dg.Config):
    """``as_of``: the business date, YYYY-MM-DD; today in PREPAID_TIMEZONE when it is not given.
    ``replay``: let figures as of an earlier date take the place of later ones.
    """

    as_of: str | None = None
    replay: bool = False

    def day(self, database: Database) -> date:
        """The business date. Raises NotAllowed for one after today (``window.require_figures``)."""
        settings = database.settings()
        day = date.fromisoformat(self.as_of) if self.as_of else settings.today()
        window.require_figures(database.engine(), settings, day)
        return day

    def span(self, context: dg.AssetExecutionContext, database: Database) -> Span:
        """The months that this run was asked for."""
        keys = context.partition_key_range
        return Span(month_of(keys.start), month_of(keys.end), self.day(database))


def table(reports: Mapping[date, Sequence[Mapping[str, Any]]]) -> dg.MarkdownMetadataValue:
    """The months as a Markdown table, one line per month and currency."""
    lines = [_line(_COLUMNS), _line(["---", "---", *["---:"] * (len(_COLUMNS) - 2)])]
    for month, currencies in reports.items():
        for f in currencies:
            kinds = [f["kinds"][kind]["plans"] for kind in KINDS]
            cells = [f["currency"], f["mrr"], f["change"], f["active_plans"], *kinds]
            taken = [f["reversals"]["amount"], f["credit_notes"]["total"]]
            lines.append(_line([f"{month:%Y-%m}", *cells, *taken]))
        if not currencies:
            lines.append(_line([f"{month:%Y-%m}", "nothing active", *[""] * (len(_COLUMNS) - 2)]))
    return dg.MetadataValue.md("\n".join(lines))


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def plotted(values: Mapping[str, str | int]) -> dict[str, dg.FloatMetadataValue]:
    """Numbers for Dagster's plots over partitions. It plots floats only; amounts are exact in the
    table next to them, and everywhere else.
    """
    return {name: dg.MetadataValue.float(float(value)) for name, value in values.items()}
