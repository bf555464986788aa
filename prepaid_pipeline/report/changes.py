"""What changed between two versions of a month's report, in one line that a person can read."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from prepaid_pipeline.report.figures import complete

_Figures = Mapping[str, Any]


def describe(before: Sequence[_Figures], after: Sequence[_Figures]) -> str:
    """``USD: MRR 100.00 -> 120.00 (+20.00), renewals 10 -> 11 (+1)``; currencies are apart."""
    old = {figures["currency"]: _headline(complete(figures)) for figures in before}
    new = {figures["currency"]: _headline(complete(figures)) for figures in after}
    texts = []
    for currency in sorted(old.keys() | new.keys()):
        pairs = {
            label: (old.get(currency, {}).get(label, "0"), new.get(currency, {}).get(label, "0"))
            for label in (new.get(currency) or old[currency])
        }
        changes = [_change(label, *pair) for label, pair in pairs.items() if pair[0] != pair[1]]
        if changes:
            texts.append(f"{currency}: {', '.join(changes)}")
        elif currency not in old or currency not in new:
            texts.append(f"{currency}: {'no longer' if currency in old else 'now'} in the report")
    return "; ".join(texts) or "the split by plan or movement; all totals are the same"


def _headline(figures: _Figures) -> dict[str, str]:
    kinds = figures["kinds"]
    return {
        "MRR": figures["mrr"],
        "MRR at the start": figures["opening_mrr"],
        "active plans": str(figures["active_plans"]),
        "customers": str(figures["customers"]),
        "new plans": str(kinds["new"]["plans"]),
        "renewals": str(kinds["renewal"]["plans"]),
        "reactivations": str(kinds["reactivation"]["plans"]),
        "changes": str(kinds["change"]["plans"]),
        "net of new plans": kinds["new"]["net_amount"],
        "net of renewals": kinds["renewal"]["net_amount"],
        "net of reactivations": kinds["reactivation"]["net_amount"],
        "net of changes": kinds["change"]["net_amount"],
        "payments taken back": figures["reversals"]["amount"],
        "credit notes": figures["credit_notes"]["total"],
    }


def _change(label: str, before: str, after: str) -> str:
    return f"{label} {before} -> {after} ({Decimal(after) - Decimal(before):+f})"
