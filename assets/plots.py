"""The numbers of a month by which each asset is plotted over its partitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from assets.common import plotted

# A plot of more countries than this tells nothing; all of them are in the table.
MOST_COUNTRIES = 12

_Figures = Mapping[str, Any]
_Numbers = dict[str, str | int | None]


def _mrr(f: _Figures) -> _Numbers:
    return {
        key: f[key] for key in ("mrr", "arr", "average_per_customer", "active_plans", "customers")
    }


def _countries(f: _Figures) -> _Numbers:
    largest = [c for c in f["countries"] if c["active_plans"]][:MOST_COUNTRIES]
    return {f"mrr {c['country'] or 'unknown country'}": c["mrr"] for c in largest}


def _movements(f: _Figures) -> _Numbers:
    return {"change": f["change"], **{m["movement"]: m["amount"] for m in f["movements"]}}


def _kinds(f: _Figures) -> _Numbers:
    return {kind: of_kind["plans"] for kind, of_kind in f["kinds"].items()}


def _new_by_country(f: _Figures) -> _Numbers:
    began = [c for c in f["countries"] if c["kinds"]["new"]["plans"]][:MOST_COUNTRIES]
    return {f"new {c['country'] or 'unknown country'}": c["kinds"]["new"]["plans"] for c in began}


def _reversals(f: _Figures) -> _Numbers:
    return {"amount": f["reversals"]["amount"]}


def _credit_notes(f: _Figures) -> _Numbers:
    return {"total": f["credit_notes"]["total"]}


def _renewals(f: _Figures) -> _Numbers:
    renewals = f["renewals"] or {}
    return {name: renewals.get(key) for name, key in (("renewal rate", "rate"), ("due", "due"))}


def _retention(f: _Figures) -> _Numbers:
    return {
        f"{name} retention, {of['window_months']} months": of[f"{name}_retention"]
        for of in f["retention"] or ()
        for name in ("customer", "gross", "net")
    }


def _deferred(f: _Figures) -> _Numbers:
    deferred = f["deferred"] or {}
    return {key: deferred.get(key) for key in ("billed", "recognised", "refunded", "closing")}


_PLOTS: dict[str, Callable[[_Figures], _Numbers]] = {
    "mrr": _mrr,
    "mrr_by_country": _countries,
    "mrr_movements": _movements,
    "plan_activations": _kinds,
    "activations_by_country": _new_by_country,
    "payment_reversals": _reversals,
    "credit_notes_issued": _credit_notes,
    "renewal_outcomes": _renewals,
    "retention": _retention,
    "deferred_revenue": _deferred,
}
ASSETS = tuple(_PLOTS)


def of_month(asset: str, currencies: Sequence[_Figures]) -> dict[str, dg.FloatMetadataValue]:
    """What one month of an asset is plotted by, each number with its currency; what has no value
    is left out.
    """
    return plotted(
        {
            f"{name} {f['currency']}": number
            for f in currencies
            for name, number in _PLOTS[asset](f).items()
            if number is not None
        }
    )
