"""The tables of a currency's figures, from the document of a report.

A table whose key the stored version does not have is None: an older release did not know it. The
tables of the month as a whole are in ``month_tables``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from prepaid_pipeline.revenue.report.page.blocks import Column, Role, Table, Word
from prepaid_pipeline.revenue.rules import KINDS

_Figures = Mapping[str, Any]
_PLAN = Column("plan")
_TOTAL: Role = "total"
_NO_ROLE: list[Role] = [""]
# Lines of the reconciliation to which those before them add up.
_SUMS = ("invoices_net", "invoices_total", "cash")


def of_currency(figures: _Figures, course: _Figures | None) -> dict[str, Table]:
    """All tables that these figures have, by name, in the order of the report."""
    made = {
        "bridge": bridge(figures),
        "course": course_table(course) if course else None,
        "plans": plans(figures),
        "countries": countries(figures),
        "activations": activations(figures),
        "renewals": renewals(figures),
        "renewals_by_plan": renewals_by(figures, "plan"),
        "renewals_by_country": renewals_by(figures, "country"),
        "retention": retention(figures),
        "cohorts": cohorts(figures),
        "deferred": deferred(figures),
        "reconciliation": reconciliation(figures),
        "reversals": reversals(figures),
        "credit_notes": credit_notes(figures),
    }
    return {name: table for name, table in made.items() if table is not None}


def bridge(figures: _Figures) -> Table:
    """The MRR bridge: MRR and customers at the start, each movement, and the end."""
    rows = [
        (Word("movement", "start"), figures["opening_customers"], figures["opening_mrr"]),
        *(
            (Word("movement", m["movement"]), m["customers"], m["amount"])
            for m in figures["movements"]
        ),
        (Word("movement", "end"), figures["customers"], figures["mrr"]),
    ]
    columns = (Column("movement"), Column("customers", "count"), Column("amount", "signed"))
    roles: list[Role] = ["start", *_NO_ROLE * len(figures["movements"]), "total"]
    return Table("bridge", columns, rows, figures["currency"], roles)


def course_table(series: Mapping[str, Any]) -> Table:
    """The last 13 months: new plans and renewals with their net prices, and MRR."""
    columns = (
        Column("month", "month"),
        Column("new", "count"),
        Column("renewals", "count"),
        Column("new_net", "money", spare=True),
        Column("renewal_net", "money", spare=True),
        Column("mrr", "money"),
    )
    rows = [tuple(point[column.name] for column in columns) for point in series["months"]]
    return Table("course", columns, rows, series["currency"])


def plans(figures: _Figures) -> Table:
    """MRR and active plans by plan, each with its share, and their total."""
    rows: list[Any] = [
        (p["name"], p["active_plans"], _part(p["mrr"], figures["mrr"]), p["mrr"])
        for p in figures["plans"]
    ]
    rows.append((Word("row", "all_plans"), figures["active_plans"], None, figures["mrr"]))
    columns = (
        _PLAN,
        Column("active_plans", "count"),
        Column("share", "share"),
        Column("mrr", "money"),
    )
    return Table("plans", columns, rows, figures["currency"], _last_is_total(rows))


def countries(figures: _Figures) -> Table | None:
    """MRR by country, with the plans that began there."""
    found = figures.get("countries")
    if not found:
        return None
    columns = (
        Column("country"),
        Column("customers", "count", spare=True),
        Column("active_plans", "count", spare=True),
        Column("new", "count"),
        Column("renewals", "count"),
        Column("share", "share", spare=True),
        Column("mrr", "money"),
    )
    rows: list[Any] = [
        (
            _country(c["country"]),
            c["customers"],
            c["active_plans"],
            c["kinds"]["new"]["plans"],
            c["kinds"]["renewal"]["plans"],
            _part(c["mrr"], figures["mrr"]),
            c["mrr"],
        )
        for c in found
    ]
    kinds = figures["kinds"]
    rows.append(
        (
            Word("row", "all_countries"),
            sum(c["customers"] for c in found),
            figures["active_plans"],
            kinds["new"]["plans"],
            kinds["renewal"]["plans"],
            None,
            figures["mrr"],
        )
    )
    return Table("countries", columns, rows, figures["currency"], _last_is_total(rows))


def activations(figures: _Figures) -> Table | None:
    """Plans that began, by plan and kind."""
    began = figures["activations"]
    if not began:
        return None
    rows = []
    for code in (*dict.fromkeys(a["plan_code"] for a in began), None):
        of_plan = [a for a in began if code in (a["plan_code"], None)]
        rows.append(
            (
                of_plan[0]["name"] if code is not None else Word("row", "all_plans"),
                *(sum(a["plans"] for a in of_plan if a["kind"] == kind) for kind in KINDS),
                sum(Decimal(a["net_amount"]) for a in of_plan),
            )
        )
    columns = (
        _PLAN,
        Column("new", "count"),
        Column("renewals", "count"),
        Column("reactivations", "count", spare=True),
        Column("changes", "count", spare=True),
        Column("net_amount", "money"),
    )
    return Table("activations", columns, rows, figures["currency"], _last_is_total(rows))


def renewals(figures: _Figures) -> Table | None:
    """Outcome of the terms that were due; None without renewal figures."""
    found = figures.get("renewals")
    if not found:
        return None
    outcomes = ("on_time", "in_grace", "reactivated", "lapsed", "cancelled", "waiting")
    due = found["due"]
    rows: list[Any] = [
        (Word("outcome", key), found[key], _part(found[key], due)) for key in outcomes
    ]
    rows.append((Word("outcome", "due"), due, None))
    columns = (Column("outcome"), Column("terms", "count"), Column("share", "share"))
    return Table("renewals", columns, rows, figures["currency"], _last_is_total(rows))


def renewals_by(figures: _Figures, what: str) -> Table | None:
    """Due and renewed terms by plan or country."""
    found = (figures.get("renewals") or {}).get({"plan": "plans", "country": "countries"}[what])
    if not found:
        return None
    rows = [
        (
            _country(r["country"]) if what == "country" else r["name"],
            r["due"],
            r["renewed"],
            r["rate"],
        )
        for r in found
    ]
    columns = (
        Column(what),
        Column("due", "count"),
        Column("renewed", "count"),
        Column("rate", "rate"),
    )
    return Table(f"renewals_by_{what}", columns, rows, figures["currency"])


def retention(figures: _Figures) -> Table | None:
    """Customers and MRR of 1 and of 12 months ago that are still there."""
    found = figures.get("retention")
    if not found:
        return None
    columns = (
        Column("window"),
        Column("customers_before", "count", spare=True),
        Column("customers_kept", "count", spare=True),
        Column("customer_retention", "rate"),
        Column("mrr_before", "money", spare=True),
        Column("mrr_kept", "money", spare=True),
        Column("mrr_now", "money", spare=True),
        Column("gross_retention", "rate"),
        Column("net_retention", "rate"),
    )
    rows = [
        (Word("window", str(r["window_months"])), *(r[c.name] for c in columns[1:])) for r in found
    ]
    return Table("retention", columns, rows, figures["currency"])


def cohorts(figures: _Figures) -> Table | None:
    """What is left of the customers who came in each month, newest first."""
    found = figures.get("cohorts")
    if not found:
        return None
    columns = (
        Column("cohort", "month"),
        Column("age_months", "count", spare=True),
        Column("customers", "count", spare=True),
        Column("customers_kept", "count", spare=True),
        Column("customer_retention", "share"),
        Column("mrr_first", "money", spare=True),
        Column("mrr_kept", "money", spare=True),
        Column("mrr_now", "money"),
        Column("net_retention", "share"),
    )
    rows = [
        (
            c["cohort"],
            c["age_months"],
            c["customers"],
            c["customers_kept"],
            _part(c["customers_kept"], c["customers"]),
            c["mrr"],
            c["mrr_kept"],
            c["mrr_now"],
            _part(c["mrr_now"], c["mrr"]),
        )
        for c in sorted(found, key=lambda c: str(c["cohort"]), reverse=True)
    ]
    return Table("cohorts", columns, rows, figures["currency"])


def deferred(figures: _Figures) -> Table | None:
    """What is owed in service: from the month's start to its end."""
    found = figures.get("deferred")
    if not found:
        return None
    signs = {"billed": 1, "recognised": -1, "refunded": -1}
    rows = [
        (Word("deferred", "opening"), found["opening"]),
        *(
            (Word("deferred", key), f"{sign * Decimal(found[key]):f}")
            for key, sign in signs.items()
        ),
        (Word("deferred", "closing"), found["closing"]),
    ]
    roles: list[Role] = ["start", "", "", "", "total"]
    columns = (Column("line"), Column("amount", "signed"))
    return Table("deferred", columns, rows, figures["currency"], roles)


def reconciliation(figures: _Figures) -> Table | None:
    """From what was billed to what was paid."""
    found = figures.get("reconciliation")
    if not found:
        return None
    rows = [
        (Word("reconciliation", r["line"]), r["amount"], Word("why", r["line"], r["why"]))
        for r in found
    ]
    columns = (Column("line"), Column("amount", "signed"), Column("why", spare=True))
    roles: list[Role] = ["total" if r["line"] in _SUMS else "" for r in found]
    return Table("reconciliation", columns, rows, figures["currency"], roles)


def reversals(figures: _Figures) -> Table:
    """Payment reversals; without any, no rows."""
    found = figures["reversals"]
    rows: list[Any] = []
    if found["records"]:
        rows = [(Word("reversal", r["kind"]), r["records"], r["amount"]) for r in found["kinds"]]
        rows.append((Word("row", "taken_back"), found["records"], found["amount"]))
    columns = (Column("reversal"), Column("records", "count"), Column("amount_with_tax", "money"))
    return Table("reversals", columns, rows, figures["currency"], _last_is_total(rows))


def credit_notes(figures: _Figures) -> Table:
    """Credit notes; without any, no rows."""
    found = figures["credit_notes"]
    columns = (
        Column("credit_notes", "count"),
        Column("net", "money"),
        Column("tax", "money"),
        Column("total", "money"),
    )
    rows = [(found["count"], found["net"], found["tax"], found["total"])] if found["count"] else []
    return Table("credit_notes", columns, rows, figures["currency"])


def _country(code: str | None) -> Word:
    return Word("country", code or "none")


def _part(part: Any, whole: Any) -> str | None:
    """The share as the text of a part of 1; None without a whole."""
    return f"{Decimal(part) / Decimal(whole):.4f}" if Decimal(whole) else None


def _last_is_total(rows: Sequence[Any]) -> list[Role]:
    return [*_NO_ROLE * (len(rows) - 1), _TOTAL] if rows else []
