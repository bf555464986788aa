"""What changed between two versions of a month's report, by how much and why."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue.report.content.figures import complete

_CAUSES = "steps/13_monthly_revenue_report/7_causes"

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
    "new_net": "net amount of new plans",
    "renewal_net": "net amount of renewals",
    "reactivation_net": "net amount of reactivations",
    "change_net": "net amount of changes",
    "reversals": "payment reversals",
    "credit_notes": "credit notes",
    "due": "terms due",
    "renewed": "terms renewed",
    "recognised": "revenue recognised",
    "deferred": "deferred revenue at the end",
    "cash": "cash",
}
# The same of all currencies in one; converted.py has their notes.
CONVERTED = ("mrr", "opening_mrr", "exchange_rates", "new_net", "renewal_net")


def since(
    connection: Connection,
    month: date,
    last: Any,
    figures: Sequence[_Figures],
    document: Mapping[str, Any],
    as_of: date,
) -> dict[str, Any]:
    """What a version of these ``figures`` and this ``document`` says of the one before it, ``last``
    (a Version): ``{since, figures, causes}``.

    ``figures`` are ``{currency, figure, before, after, difference}``, ``causes`` ``{cause, times,
    first_on, last_on}``: what has become known since ``last`` was computed, of all that the month's
    figures are made from.
    """
    asked = {"month": month, "since": last.computed_at or last.published_at, "as_of": as_of}
    rows = queries.statement(_CAUSES).execute(connection, asked).mappings()
    causes = [
        {**row, "first_on": row["first_on"].isoformat(), "last_on": row["last_on"].isoformat()}
        for row in rows
    ]
    return {
        "since": last.version,
        "figures": [
            *differences(last.figures, figures),
            *_converted_differences((last.document or {}).get("converted"), document["converted"]),
        ],
        "causes": causes,
    }


def differences(before: Sequence[_Figures], after: Sequence[_Figures]) -> list[dict[str, str]]:
    """Every figure of the headline that differs, by currency; amounts and counts are texts."""
    old = {figures["currency"]: _headline(complete(figures)) for figures in before}
    new = {figures["currency"]: _headline(complete(figures)) for figures in after}
    found = []
    for currency in sorted(old.keys() | new.keys()):
        # A currency that was not there before had 0 of all, whatever its decimals.
        nothing = dict.fromkeys(LABELS, "0")
        before_, after_ = old.get(currency, nothing), new.get(currency, nothing)
        # What a version of an older release did not know has not changed.
        for figure in (f for f in LABELS if f in before_ and f in after_):
            found += _difference(currency, figure, before_[figure], after_[figure])
    return found


def _converted_differences(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    if before is None or after is None or before["currency"] != after["currency"]:
        return []
    return [
        entry
        for figure in CONVERTED
        for entry in _difference(
            after["currency"], f"converted_{figure}", before[figure], after[figure]
        )
    ]


def _difference(currency: str, figure: str, before: str, after: str) -> list[dict[str, str]]:
    if Decimal(before) == Decimal(after):
        return []
    difference = f"{Decimal(after) - Decimal(before):f}"
    return [
        {
            "currency": currency,
            "figure": figure,
            "before": before,
            "after": after,
            "difference": difference,
        }
    ]


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
        **_later(figures),
    }


def _later(figures: _Figures) -> dict[str, str]:
    """The figures that versions of an older release do not have."""
    found = dict[str, str]()
    if (renewals := figures["renewals"]) is not None:
        found |= {"due": str(renewals["due"]), "renewed": str(renewals["renewed"])}
    if (deferred := figures["deferred"]) is not None:
        found |= {"recognised": deferred["recognised"], "deferred": deferred["closing"]}
    for line in figures["reconciliation"] or ():
        if line["line"] == "cash":
            found["cash"] = line["amount"]
    return found


def _change(found: Mapping[str, str]) -> str:
    label = LABELS[found["figure"]]
    before, after, difference = (Decimal(found[key]) for key in ("before", "after", "difference"))
    return f"{label} {before:,f} -> {after:,f} ({difference:+,f})"
