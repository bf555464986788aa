"""The page of a report: what is said in which order, and in which words. Formats only draw it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.content.figures import complete
from prepaid_pipeline.revenue.report.page import charts, currency_tables, month_tables
from prepaid_pipeline.revenue.report.page.blocks import (
    Block,
    Figure,
    Folded,
    Headline,
    Page,
    Paragraph,
    Section,
    Split,
    Table,
    Terms,
    Tile,
    Word,
)
from prepaid_pipeline.revenue.rules import KINDS

_Figures = Mapping[str, Any]
_SHOWN_COHORTS = 13
# What is explained, and the table that must be there for it.
_TERMS = {
    "service_plan": "bridge",
    "began": "bridge",
    "mrr": "bridge",
    "movements": "bridge",
    "country": "countries",
    "renewal_rate": "renewals",
    "retention": "retention",
    "cohorts": "cohorts",
    "deferred": "deferred",
    "reversals": "bridge",
    "credit_notes": "bridge",
    "converted": "rates",
    "sign_off": "tasks",
    "closed": "versions",
    "fingerprint": "versions",
    "rounding": "bridge",
}


def build(document: Mapping[str, Any], say: Language) -> Page:
    """The page of a document in a language."""
    month = say.month(document["month"])
    is_closed = document["status"] == "closed"
    version = document["version"]
    dates = {
        "measured": say.day(document["measured_on"]),
        "cut_off": say.day(document["cut_off"]),
        "closes": say.day(document["closes_on"]),
    }
    badge = say("page.closed", version=version) if is_closed else say("page.preliminary")
    return Page(
        title=say("page.title", month=month),
        kicker=say("page.kicker"),
        month=month,
        badge=badge,
        is_closed=is_closed,
        measured=say("page.measured_closed" if is_closed else "page.measured_preliminary", **dates),
        notice=_notice(document, say),
        sections=tuple(_sections(document, say)),
        footer=tuple(_footer(document, say)),
        file_stem=f"report-v{version}" if is_closed else "report",
        say=say,
    )


def changed(document: Mapping[str, Any], say: Language) -> str:
    """What a version after the first says of itself, in a sentence per currency; else nothing."""
    found = document.get("changes")
    if not found:
        # A version of an older release has its note only.
        return document["note"] if document["version"] > 1 else ""
    parts = []
    for currency in dict.fromkeys(c["currency"] for c in found["figures"]):
        figures = [
            say(
                "changed.figure",
                figure=say(f"figure.{c['figure']}"),
                before=say.money(c["before"]),
                after=say.money(c["after"]),
                difference=say.signed(c["difference"]),
            )
            for c in found["figures"]
            if c["currency"] == currency
        ]
        parts.append(f"{currency}: {', '.join(figures)}")
    what = "; ".join(parts) or say("changed.split_only")
    return say("changed.since", version=found["since"], what=what)


def why(document: Mapping[str, Any], say: Language) -> str:
    """Why: ``3 terms imported on 20 November 2026``; empty when nothing is known of it."""
    found = (document.get("changes") or {}).get("causes") or ()
    reasons = []
    for cause in found:
        one_day = cause["first_on"] == cause["last_on"]
        days = say(
            "cause.on" if one_day else "cause.between",
            first=say.day(cause["first_on"]),
            last=say.day(cause["last_on"]),
        )
        because = say.counted(f"because.{cause['cause']}", cause["times"])
        reasons.append(f"{because} {days}")
    return say("changed.why", reasons="; ".join(reasons)) if reasons else ""


def headline(figures: _Figures, say: Language) -> Headline:
    """The answer in ten seconds for one currency."""
    currency, kinds = figures["currency"], figures["kinds"]
    large = (
        Tile(
            say("tile.mrr"),
            say.money(figures["mrr"]),
            currency,
            _since_the_month_before(figures["change"], figures["opening_mrr"], say),
        ),
        *(
            Tile(
                say(f"kinds.{kind}"),
                say.count(kinds[kind]["plans"]),
                note=say(
                    "tile.net", amount=say.money(kinds[kind]["net_amount"]), currency=currency
                ),
                kind=kind,
            )
            for kind in ("new", "renewal")
        ),
    )
    return Headline(
        _sentence(figures, say), large, tuple(_small(figures, say)), _split(figures, say)
    )


def _sentence(figures: _Figures, say: Language) -> str:
    change, kinds = Decimal(figures["change"]), figures["kinds"]
    way = "up" if change > 0 else "down" if change < 0 else "same"
    mrr = say(
        f"lead.{way}" if Decimal(figures["opening_mrr"]) or way == "same" else "lead.first",
        mrr=say.money(figures["mrr"]),
        currency=figures["currency"],
        change=say.money(abs(change)),
        rate=_growth(change, figures["opening_mrr"], say),
    )
    plans = say(
        "lead.plans",
        new=say.counted("count.new", kinds["new"]["plans"]),
        renewals=say.counted("count.renewals", kinds["renewal"]["plans"]),
    )
    return f"{mrr} {plans}"


def _small(figures: _Figures, say: Language) -> Iterable[Tile]:
    currency, kinds = figures["currency"], figures["kinds"]
    yield Tile(say("tile.customers"), say.count(figures["customers"]))
    yield Tile(say("tile.active_plans"), say.count(figures["active_plans"]))
    if figures.get("arr") is not None:
        yield Tile(say("tile.arr"), say.money(figures["arr"]), currency)
    if figures.get("average_per_customer") is not None:
        yield Tile(say("tile.average"), say.money(figures["average_per_customer"]), currency)
    if (rate := (figures.get("renewals") or {}).get("rate")) is not None:
        yield Tile(say("tile.renewal_rate"), say.rate(rate))
    for window in figures.get("retention") or ():
        if window["window_months"] == 12 and window["net_retention"] is not None:
            yield Tile(say("tile.net_retention"), say.rate(window["net_retention"]))
    for kind in ("reactivation", "change"):
        if kinds[kind]["plans"]:
            yield Tile(say(f"kinds.{kind}"), say.count(kinds[kind]["plans"]), kind=kind)


def _split(figures: _Figures, say: Language) -> Split | None:
    counts = {kind: figures["kinds"][kind]["plans"] for kind in KINDS}
    total = sum(counts.values())
    if not total:
        return None
    parts = [
        (say(f"kinds.{kind}"), Decimal(count) / total, kind)
        for kind, count in counts.items()
        if count
    ]
    shown = ", ".join(f"{label} {say.rate(share)}" for label, share, _ in parts)
    return Split(say("alt.split", n=say.count(total), parts=shown), tuple(parts))


def _since_the_month_before(change: str, opening: str, say: Language) -> str:
    if not Decimal(change):
        return say("tile.same")
    rate = _growth(Decimal(change), opening, say)
    return say("tile.change", change=say.signed(change), rate=rate)


def _growth(change: Decimal, opening: str, say: Language) -> str:
    """By how much of what there was it rose or fell, with its sign."""
    if not Decimal(opening):
        return say("tile.from_nothing")
    return say.growth(change / Decimal(opening))


def _sections(document: Mapping[str, Any], say: Language) -> Iterable[Section]:
    courses = {series["currency"]: series for series in document.get("course") or ()}
    several = len(document["currencies"]) > 1
    known = set[str]()
    yield from _converted(document, say)
    for figures in map(complete, document["currencies"]):
        course = courses.get(figures["currency"])
        made = currency_tables.of_currency(figures, course)
        known |= made.keys()
        yield from _of_currency(figures, course, made, say, several=several)
    if not document["currencies"]:
        nothing = Paragraph(say("page.nothing", month=say.month(document["month"])))
        yield Section("nothing", say("section.headline"), (nothing,))
    made = month_tables.of_month(document)
    known |= made.keys() | {"bridge"}
    yield from _of_month(document, made, say)
    terms = tuple(
        (say(f"term.{key}"), say(f"definition.{key}"))
        for key, table in _TERMS.items()
        if table in known
    )
    yield Section("definitions", say("section.definitions"), (Terms(terms),))
    yield Section("versions", say("section.versions"), (made["versions"],))


def _converted(document: Mapping[str, Any], say: Language) -> Iterable[Section]:
    """All currencies together, where a reporting currency is set and all its rates are known."""
    found = document.get("converted")
    if not found:
        if missing := document.get("converted_missing"):
            text = say("converted.missing", rates=", ".join(missing))
            yield Section("converted", say("section.converted_missing"), (Paragraph(text, "bad"),))
        return
    currency = found["currency"]
    change = f"{Decimal(found['mrr']) - Decimal(found['opening_mrr']):f}"
    large = (
        Tile(
            say("tile.mrr"),
            say.money(found["mrr"]),
            currency,
            _since_the_month_before(change, found["opening_mrr"], say),
        ),
        Tile(say("tile.new_net"), say.money(found["new_net"]), currency, kind="new"),
        Tile(say("tile.renewal_net"), say.money(found["renewal_net"]), currency, kind="renewal"),
    )
    sentence = say("converted.sentence", currency=currency, mrr=say.money(found["mrr"]))
    yield Section(
        "converted",
        say("section.converted", currency=currency),
        (
            Headline(sentence, large),
            _bridge(month_tables.as_figures(found), month_tables.converted(found), say),
        ),
    )


def _of_currency(
    figures: _Figures,
    course: _Figures | None,
    made: Mapping[str, Table],
    say: Language,
    *,
    several: bool,
) -> Iterable[Section]:
    currency = figures["currency"]

    def section(name: str, *names: str, halves: bool = False) -> Iterable[Section]:
        blocks = tuple(_some(made[n], say) for n in names if n in made)
        if blocks:
            yield Section(f"{name}-{currency}", say(f"section.{name}"), blocks, halves, currency)

    title = say("section.headline_of", currency=currency) if several else say("section.headline")
    yield Section(f"headline-{currency}", title, (headline(figures, say),), currency=currency)
    drawn: list[Block] = []
    if course is not None and len(course["months"]) > 1:
        drawn += _course(course, made["course"], say)
    drawn.append(_bridge(figures, made["bridge"], say))
    yield Section(f"course-{currency}", say("section.course"), tuple(drawn), True, currency)
    yield from section("plans", "plans", "countries", "activations")
    yield from section(
        "renewals", "renewals", "renewals_by_plan", "renewals_by_country", halves=True
    )
    yield from section("retention", "retention", "cohorts")
    yield from section(
        "money", "deferred", "reconciliation", "reversals", "credit_notes", halves=True
    )


def _some(table: Table, say: Language) -> Block:
    """The table, or a sentence where it has no rows; not more cohorts than a page can take."""
    if not table.rows:
        return Paragraph(say(f"none.{table.name}"))
    if table.name == "reconciliation":
        # Lines of nothing explain nothing; they are in the tables for spreadsheets.
        kept = [n for n, row in enumerate(table.rows) if table.role(n) or Decimal(str(row[1]))]
        return replace(
            table, rows=[table.rows[n] for n in kept], roles=[table.role(n) for n in kept]
        )
    if table.name == "cohorts" and len(table.rows) > _SHOWN_COHORTS:
        more = say.counted("note.more_cohorts", len(table.rows) - _SHOWN_COHORTS)
        return replace(table, rows=table.rows[:_SHOWN_COHORTS], note=more)
    return table


def _course(course: _Figures, table: Table, say: Language) -> Iterable[Figure]:
    first, last = course["months"][0], course["months"][-1]
    between = {"first": say.month(first["month"]), "last": say.month(last["month"])}
    plans = say(
        "alt.course_of_plans",
        **between,
        new_first=say.count(first["new"]),
        renewals_first=say.count(first["renewals"]),
        new_last=say.count(last["new"]),
        renewals_last=say.count(last["renewals"]),
    )
    lowest, highest = (f(course["months"], key=lambda p: Decimal(p["mrr"])) for f in (min, max))
    mrr = say(
        "alt.course_of_mrr",
        **between,
        currency=course["currency"],
        mrr_first=say.money(first["mrr"]),
        mrr_last=say.money(last["mrr"]),
        lowest=say.money(lowest["mrr"]),
        lowest_month=say.month(lowest["month"]),
        highest=say.money(highest["mrr"]),
        highest_month=say.month(highest["month"]),
    )
    yield Figure(charts.course_of_plans(course, say("chart.course_of_plans"), plans, say), table)
    title = say("chart.course_of_mrr", currency=course["currency"])
    yield Figure(charts.course_of_mrr(course, title, mrr, say), table)


def _bridge(figures: _Figures, table: Table, say: Language) -> Figure:
    moved = ", ".join(
        f"{Word('movement', m['movement']).text(say)} {say.signed(m['amount'])}"
        for m in figures["movements"]
    )
    alternative = say(
        "alt.bridge",
        start=say.money(figures["opening_mrr"]),
        end=say.money(figures["mrr"]),
        currency=figures["currency"],
        moved=moved,
    )
    drawn = charts.bridge(figures, say("chart.bridge"), alternative, say)
    return Figure(drawn, table, open=True)


def _of_month(
    document: Mapping[str, Any], made: Mapping[str, Table], say: Language
) -> Iterable[Section]:
    if "rates" in made:
        yield Section("rates", say("section.rates"), (made["rates"],))
    ran = tuple(made[name] for name in ("tasks", "holds") if name in made)
    if ran:
        yield Section("process", say("section.process"), ran)
    if "checks" in made:
        found = document["quality"]
        bad = [check for check in found if not check["passed"]]
        summary = (
            say("quality.some", bad=say.count(len(bad)), n=say.count(len(found)))
            if bad
            else say.counted("quality.all", len(found))
        )
        told: list[Block] = [Paragraph(summary, "bad" if bad else "good")]
        if (failing := month_tables.failing(document)) is not None:
            told.append(failing)
        told.append(Folded(made["checks"]))
        yield Section("checks", say("section.checks"), tuple(told))
    if "changes" in made or "causes" in made:
        why = tuple(made[name] for name in ("changes", "causes") if name in made)
        title = say("section.changes", version=document["changes"]["since"])
        yield Section("changes", title, why, halves=True)


def _notice(document: Mapping[str, Any], say: Language) -> str:
    return " ".join(filter(None, (changed(document, say), why(document, say))))


def _footer(document: Mapping[str, Any], say: Language) -> Iterable[str]:
    yield say("footer.published", at=say.moment(document["published_at"]))
    if document["fingerprint"]:
        yield say("footer.fingerprint", fingerprint=document["fingerprint"])
    if document.get("audit_seal"):
        yield say("footer.audit_seal", seal=document["audit_seal"])
