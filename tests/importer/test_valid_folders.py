"""Whatever a valid folder holds is imported completely, once."""

import csv
import io
import uuid
from collections.abc import Iterable
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prepaid_pipeline.importer import terms
from prepaid_pipeline.importer.terms import Term
from tests.budget import examples
from tests.importer.folders import rows, take

EXPONENTS = {"USD": 2, "JPY": 0, "KWD": 3}
# Everything that a file can hold and PostgreSQL can store, quotes, commas and line breaks included.
words = st.text(
    st.one_of(st.characters(exclude_categories=("Cs", "Cc")), st.sampled_from('\n",;')),
    min_size=1,
    max_size=30,
).filter(lambda text: bool(text.strip()))
lengths = st.one_of(
    st.builds(Term, months=st.integers(1, 24)), st.builds(Term, days=st.integers(1, 90))
)


def _price(draw: st.DrawFn, currency: str) -> str:
    exponent = EXPONENTS[currency]
    return f"{draw(st.decimals(0, 10**6, places=exponent, allow_nan=False)):f}"


def _text(header: str, lines: Iterable[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header.split(","), *lines])
    return stream.getvalue()


@st.composite
def _folders(draw: st.DrawFn) -> dict[str, str]:
    """The files of a folder, all references beginning with MARK."""
    mark = "MARK"
    plans, addons, customers, subscriptions, service_plans = [], [], [], [], []
    choices: list[tuple[str, Term]] = []
    for n, term in enumerate(draw(st.lists(lengths, min_size=1, max_size=3))):
        name = draw(words)
        for currency in EXPONENTS:
            price = draw(st.one_of(st.just(""), st.just(_price(draw, currency))))
            plans.append([f"{mark}-{n}", name, terms.format(term), currency, price])
        choices.append((f"{mark}-{n}", term))
    extra, recurring = draw(words), draw(st.sampled_from(["true", "false"]))
    for term in {term for _, term in choices}:
        for currency in EXPONENTS:
            price = _price(draw, currency)
            addons.append([mark, extra, terms.format(term), currency, price, recurring])
    for n in range(draw(st.integers(1, 4))):
        ref, currency = f"{mark}-{n}", draw(st.sampled_from(sorted(EXPONENTS)))
        customers.append([ref, draw(words), "", "US", currency, "false"])
        plan, _ = draw(st.sampled_from(choices))
        start = draw(st.dates(date(2020, 1, 1), date(2025, 12, 31)))
        sold = draw(st.sampled_from(["", mark]))
        subscriptions.append([ref, ref, plan, start.isoformat(), "true", "", sold])
        for gap, days in draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 99)))):
            begin = start + timedelta(days=gap)
            start = begin + timedelta(days=days)
            price = _price(draw, currency)
            service_plans.append([ref, begin.isoformat(), start.isoformat(), price, "Expired"])
    return {
        "customers": _text("customer_ref,name,email,country,currency,tax_exempt", customers),
        "plans": _text("plan_code,name,term,currency,price", plans),
        "addons": _text("addon_code,name,term,currency,price,recurring", addons),
        "subscriptions": _text(
            "subscription_ref,customer_ref,plan_code,started_on,auto_renew,price,addons",
            subscriptions,
        ),
        "service_plans": _text("subscription_ref,start_date,end_date,price,status", service_plans),
    }


@settings(max_examples=examples(20), deadline=None)
@given(folder=_folders())
def test_a_valid_folder_is_imported_completely(
    shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory, folder: dict[str, str]
) -> None:
    # One database for all examples: each has references of its own.
    mark = uuid.uuid4().hex
    files = {name: content.replace("MARK", mark) for name, content in folder.items()}
    directory = tmp_path_factory.mktemp("valid")
    first = take(shared_engine, directory, files)
    assert [error for report in first.values() for error in report.errors] == []
    assert all(report.added == report.rows for report in first.values())
    again = take(shared_engine, directory, files)
    assert {report.status for report in again.values()} == {"unchanged"}
    stored = rows(
        shared_engine,
        """SELECT customer_ref, name, currency FROM prepaid.customers
           WHERE starts_with(customer_ref, :mark) ORDER BY 1""",
        mark=mark,
    )
    (_, *lines) = csv.reader(io.StringIO(files["customers"]))
    assert stored == [(line[0], line[1].strip(), line[4]) for line in lines]
