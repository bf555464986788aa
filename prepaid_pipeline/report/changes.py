"""What changed between two versions of a month's report, by how much and why."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from prepaid_pipeline import queries
from prepaid_pipeline.report.figures import complete
from prepaid_pipeline.report.parts import SQL

_Figures = Mapping[str, Any]
# The figures that are compared, and what the note calls them.
LABELS = {
    "mrr": "MRR",
    "opening_mrr": "MRR at the start",
    "active_plans": "active plans",
    "customers": "customers",
    "new_plans": "new plans",
    "renewals": "renewals",
    "reactivations": "reactivations",
    "changes": "changes",
    "new_net": "net of new plans",
    "renewal_net": "net of renewals",
    "reactivation_net": "net of reactivations",
    "change_net": "net of changes",
    "reversals": "payments taken back",
    "credit_notes": "credit notes",
}


def since(
    connection: Connection, month: date, last: Any, figures: Sequence[_Figures], as_of: date
) -> dict[str, Any]:
    """What a version after ``last`` (a Version) says of it: ``{since, figures, causes}``.

    ``figures`` are ``{currency, figure, before, after, difference}``, ``causes`` ``{cause, times,
    first_on, last_on}``: what has become known since ``last`` was computed, of all that the month's
    figures are made from.
    """
    asked = {"month": month, "since": last.computed_at or last.published_at, "as_of": as_of}
    rows = queries.statement(SQL, "causes").execute(connection, asked).mappings()
    causes = [
        {**row, "first_on": row["first_on"].isoformat(), "last_on": row["last_on"].isoformat()}
        for row in rows
    ]
    return {
        "since": last.version,
        "figures": differences(last.figures, figures),
        "causes": causes,
    }


def differences(before: Sequence[_Figures], after: Sequence[_Figures]) -> list[dict[str, str]]:
    """Every figure of the headline that differs, by currency; amounts and counts are texts."""
    old = {figures["currency"]: _headline(complete(figures)) for figures in before}
    new = {figures["currency"]: _headline(complete(figures)) for figures in after}
    found = []
    for currency in sorted(old.keys() | new.keys()):
        for figure in LABELS:
            pair = [side.get(currency, {}).get(figure, "0") for side in (old, new)]
            # A currency that was not there before had 0 of all, whatever its decimals.
            if Decimal(pair[0]) != Decimal(pair[1]):
                found.append(
                    {
                        "currency": currency,
                        "figure": figure,
                        "before": pair[0],
                        "after": pair[1],
                        "difference": f"{Decimal(pair[1]) - Decimal(pair[0]):f}",
                    }
                )
    return found


def describe(before: Sequence[_Figures], after: Sequence[_Figures]) -> str:
    """``USD: MRR 100.00 -> 120.00 (+20.00), renewals 10 -> 11 (+1)``; currencies are apart."""
    found = differences(before, after)
    known = [{figures["currency"] for figures in side} for side in (before, after)]
    texts = []
    for currency in sorted(known[0] | known[1]):
        changes = [_change(d) for d in found if d["currency"] == currency]
        if changes:
            texts.append(f"{currency}: {', '.join(changes)}")
        elif currency in known[0] ^ known[1]:
            which = "no longer" if currency in known[0] else "now"
            texts.append(f"{currency}: {which} in the report")
    return "; ".join(texts) or "the split by plan, country or movement; all totals are the same"


def _headline(figures: _Figures) -> dict[str, str]:
    kinds = figures["kinds"]
    return {
        "mrr": figures["mrr"],
        "opening_mrr": figures["opening_mrr"],
        "active_plans": str(figures["active_plans"]),
        "customers": str(figures["customers"]),
        "new_plans": str(kinds["new"]["plans"]),
        "renewals": str(kinds["renewal"]["plans"]),
        "reactivations": str(kinds["reactivation"]["plans"]),
        "changes": str(kinds["change"]["plans"]),
        "new_net": kinds["new"]["net_amount"],
        "renewal_net": kinds["renewal"]["net_amount"],
        "reactivation_net": kinds["reactivation"]["net_amount"],
        "change_net": kinds["change"]["net_amount"],
        "reversals": figures["reversals"]["amount"],
        "credit_notes": figures["credit_notes"]["total"],
    }


def _change(found: Mapping[str, str]) -> str:
    label, difference = LABELS[found["figure"]], Decimal(found["difference"])
    return f"{label} {found['before']} -> {found['after']} ({difference:+f})"
