"""The tables of the month as a whole, from the document of a report: all currencies in one, what
changed since the version before, what people did, and the checks.

A table whose key the stored version does not have is None: an older release did not know it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prepaid_pipeline.revenue.report.page.blocks import Column, Role, Table, Word

_Document = Mapping[str, Any]
_NO_ROLE: list[Role] = [""]


def of_month(document: _Document) -> dict[str, Table]:
    """The tables of the month as a whole that the document has, by name."""
    made = {
        "converted": converted(document["converted"]) if document.get("converted") else None,
        "changes": changes(document),
        "causes": causes(document),
        "tasks": tasks(document),
        "holds": holds(document),
        "checks": checks(document),
        "rates": rates(document),
        "versions": versions(document),
    }
    return {name: table for name, table in made.items() if table is not None}


def as_figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """What all currencies in one have of a currency's figures; the rates are a movement here."""
    rates = {"movement": "exchange_rates", "amount": found["exchange_rates"]}
    return {**found, "movements": [*found["movements"], rates]}


def converted(found: Mapping[str, Any]) -> Table:
    """The bridge of all currencies in one; what the rates alone did is a line of its own."""
    rows = [
        (Word("movement", "start"), found["opening_mrr"]),
        *((Word("movement", m["movement"]), m["amount"]) for m in as_figures(found)["movements"]),
        (Word("movement", "end"), found["mrr"]),
    ]
    roles: list[Role] = ["start", *_NO_ROLE * (len(rows) - 2), "total"]
    columns = (Column("movement"), Column("amount", "signed"))
    return Table("converted", columns, rows, found["currency"], roles)


def changes(document: _Document) -> Table | None:
    """The figures that changed since the previous version; None if none did."""
    found = document.get("changes")
    if not found or not found["figures"]:
        return None
    columns = (
        Column("currency"),
        Column("figure"),
        Column("before", "money"),
        Column("after", "money"),
        Column("difference", "signed"),
    )
    rows = [
        (c["currency"], Word("figure", c["figure"]), c["before"], c["after"], c["difference"])
        for c in found["figures"]
    ]
    return Table("changes", columns, rows, stacks=True)


def causes(document: _Document) -> Table | None:
    """Why they changed: the late data by kind; None without changes."""
    found = (document.get("changes") or {}).get("causes")
    if not found:
        return None
    columns = (
        Column("cause"),
        Column("times", "count"),
        Column("first_on", "day"),
        Column("last_on", "day"),
    )
    rows = [(Word("cause", c["cause"]), c["times"], c["first_on"], c["last_on"]) for c in found]
    return Table("causes", columns, rows)


def tasks(document: _Document) -> Table | None:
    """Sign-offs: how many, how fast, how many late or rejected."""
    found = (document.get("process") or {}).get("tasks")
    if not found:
        return None
    columns = (
        Column("task"),
        Column("opened", "count"),
        Column("decided", "count"),
        Column("rejected", "count"),
        Column("open", "count"),
        Column("late", "count"),
        Column("median_hours", "hours"),
        Column("longest_hours", "hours"),
    )
    rows = [(Word("task", t["kind"]), *(t[c.name] for c in columns[1:])) for t in found]
    return Table("tasks", columns, rows, stacks=True)


def holds(document: _Document) -> Table | None:
    """Plans that waited for a person, by reason."""
    found = (document.get("process") or {}).get("holds")
    if not found:
        return None
    columns = (
        Column("reason"),
        Column("placed", "count"),
        Column("released", "count"),
        Column("held", "count"),
    )
    rows = [
        (Word("reason", h["reason_code"]), h["placed"], h["released"], h["held"]) for h in found
    ]
    return Table("holds", columns, rows)


def checks(document: _Document) -> Table | None:
    """Every rule and what it came to."""
    return _checks("checks", document.get("quality"))


def failing(document: _Document) -> Table | None:
    """The rules of data quality that are violated; None if all hold."""
    found = document.get("quality") or ()
    return _checks("failing_checks", [check for check in found if not check["passed"]])


def _checks(name: str, found: Sequence[Mapping[str, Any]] | None) -> Table | None:
    if not found:
        return None
    columns = (Column("of"), Column("rule"), Column("result"), Column("failing", "count"))
    rows = [
        (
            Word("asset", c["asset"]),
            Word("rule", c["rule"]),
            Word("result", "holds" if c["passed"] else "warns" if c["warning"] else "fails"),
            c["failing"],
        )
        for c in found
    ]
    return Table(name, columns, rows)


def rates(document: _Document) -> Table | None:
    """The rates by which currencies were converted."""
    found = (document.get("converted") or {}).get("rates")
    if not found:
        return None
    columns = (
        Column("currency"),
        Column("opening_rate", "money"),
        Column("rate_of_exchange", "money"),
    )
    return Table("rates", columns, [(r["currency"], r["opening_rate"], r["rate"]) for r in found])


def versions(document: _Document) -> Table:
    """The versions of the report up to this one, with cut-off and fingerprint."""
    columns = (
        Column("version"),
        Column("cut_off", "day"),
        Column("fingerprint", spare=True),
        Column("note"),
    )
    rows = [
        (
            str(v["version"]) if v["version"] else Word("status", "preliminary"),
            v["cut_off"],
            (v["fingerprint"] or "")[:12],
            v["note"],
        )
        for v in document["versions"]
    ]
    return Table("versions", columns, rows)
