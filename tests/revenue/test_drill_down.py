"""The service plans behind a figure add up to it, exactly."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database.connections import acting_as
from prepaid_pipeline.revenue.figures import last_day
from prepaid_pipeline.settings.load import Settings
from tests.conftest import filled
from tests.revenue import history
from tests.revenue.conftest import Run
from tests.revenue.history import Term, insert, publish, rows, weekly
from tests.revenue.test_movements import FIRST, MONTHS, TERMS, cut
from tests.revenue.test_reversals import credit_note
from tests.world import World

D = date
# What is published, and the same added up from the plans behind it.
COMPARED = [
    (
        "SELECT currency, plan_code, active_plans, mrr FROM revenue.mrr WHERE month = :month",
        "SELECT currency, plan_code, count(*), sum(amount) FROM revenue.plans_behind_mrr(:month)"
        " GROUP BY 1, 2",
    ),
    (
        "SELECT currency, country, active_plans, mrr FROM revenue.mrr_by_country"
        " WHERE month = :month",
        "SELECT currency, country, count(*), sum(amount) FROM revenue.plans_behind_mrr(:month)"
        " GROUP BY 1, 2",
    ),
    (
        "SELECT currency, movement, customers, amount FROM revenue.mrr_movements"
        " WHERE month = :month",
        "SELECT currency, movement, count(DISTINCT customer_ref), sum(amount)"
        " FROM revenue.plans_behind_movements(:month) GROUP BY 1, 2",
    ),
    (
        "SELECT currency, plan_code, kind, plans, net_amount FROM revenue.plan_activations"
        " WHERE month = :month",
        "SELECT currency, plan_code, kind, count(*), sum(amount)"
        " FROM revenue.plans_behind_activations(:month) GROUP BY 1, 2, 3",
    ),
    (
        "SELECT currency, country, kind, plans, net_amount FROM revenue.activations_by_country"
        " WHERE month = :month",
        "SELECT currency, country, kind, count(*), sum(amount)"
        " FROM revenue.plans_behind_activations(:month) GROUP BY 1, 2, 3",
    ),
]


def assert_behind(engine: Engine, month: date) -> None:
    for published, behind in COMPARED:
        figures = sorted(rows(engine, published, month=month))
        assert sorted(rows(engine, behind, month=month)) == figures


@pytest.fixture
def shared_engine(module_world: World) -> Engine:
    return module_world.engine


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    terms=TERMS,
    countries=st.lists(st.sampled_from(["DE", "AT", None]), min_size=12, max_size=12),
    late=st.lists(st.integers(0, 50), min_size=12, max_size=12),
    cut=st.integers(0, 30),
)
def test_every_figure_of_every_month(
    shared_engine: Engine,
    terms: list[Term],
    countries: list[str | None],
    late: list[int],
    cut: int,
) -> None:
    """Whatever the terms, activated late or cut short, and on any day of the running month."""
    terms = [
        replace(term, country=country, activated_on=date.fromordinal(term.start.toordinal() + days))
        for term, country, days in zip(terms, countries, late, strict=False)
    ]
    last = D(FIRST.year + (MONTHS - 1) // 12, 1 + (MONTHS - 1) % 12, 1)
    as_of = min(last.replace(day=1 + cut % 28), last_day(last))
    history.clear(shared_engine)
    insert(shared_engine, terms)
    publish(shared_engine, f"{FIRST:%Y-%m}", f"{last:%Y-%m}", as_of)
    for (month,) in rows(shared_engine, "SELECT month FROM revenue.months"):
        assert_behind(shared_engine, month)


@pytest.fixture(scope="module")
def template(cluster: URL) -> Iterator[str]:
    with filled(cluster, february_and_march) as name:
        yield name


@pytest.fixture
def march(engine: Engine, installation: Settings) -> Engine:
    """What february_and_march has put in."""
    return engine


def february_and_march(engine: Engine) -> None:
    """One stays, one grows, one leaves, one comes."""
    insert(
        engine,
        [
            Term(D(2026, 2, 3)),
            Term(D(2026, 3, 3), kind="renewal"),
            Term(D(2026, 2, 5), customer=2),
            Term(D(2026, 3, 5), "12.50", customer=2, kind="renewal"),
            cut(D(2026, 2, 9), D(2026, 3, 20), customer=3),
            Term(D(2026, 3, 9), "2000.00", 12, customer=4, country="DE"),
            weekly(D(2026, 3, 2), customer=5, country=None),
        ],
    )
    publish(engine, "2026-02", "2026-03")


def test_the_sum_and_its_plans(march: Engine, prepaid: Run) -> None:
    code, out, err = prepaid("drill", "mrr", "2026-03")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        "service",
        "plan",
        "id",
        "customer",
        "ref",
        "subscription",
        "ref",
        "plan",
        "code",
        "country",
        "kind",
        "start",
        "date",
        "end",
        "date",
        "currency",
        "amount",
    ]
    assert [line.split()[-1] for line in lines[1:-1]] == ["10.00", "12.50", "166.6667"]
    assert lines[-1] == "189.17 USD over 3 plans, as published"


def test_movements_count_customers(march: Engine, prepaid: Run) -> None:
    code, out, _ = prepaid("drill", "movements", "2026-03", "--json")
    found = json.loads(out)
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for plan in found["plans"]:
        amounts[plan["movement"]] += Decimal(plan["amount"])
    assert code == 0
    assert amounts["expansion"] == Decimal("2.50")
    assert amounts["churn"] == -10
    assert found["totals"][0]["count"] == found["totals"][0]["published_count"] == 3
    assert found["totals"][0]["amount"] == found["totals"][0]["published"]
    assert found["as_of"] == "2026-03-31"
    _, out, _ = prepaid("drill", "movements", "2026-03", "--movement", "expansion")
    assert out.splitlines()[-1] == "2.50 USD over 1 customer, as published"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mrr", "--country", "DE"), "166.67 USD over 1 plan, as published"),
        (("mrr", "--plan", "P1M0D", "--currency", "USD"), "22.50 USD over 2 plans, as published"),
        (
            ("mrr", "--country", "US", "--plan", "P1M0D"),
            "22.50 USD over 2 plans; the report has no figure of its own for it",
        ),
        (("mrr", "--currency", "EUR"), "No service plan is behind this figure."),
        (("activations", "--kind", "new"), "2,010.00 USD over 2 plans, as published"),
        (("activations", "--country", "unknown"), "10.00 USD over 1 plan, as published"),
        (
            ("activations", "--kind", "renewal", "--plan", "P1M0D"),
            "22.50 USD over 2 plans, as published",
        ),
        (
            ("movements", "--country", "DE"),
            "166.67 USD over 1 customer; the report has no figure of its own for it",
        ),
    ],
)
def test_filters(march: Engine, prepaid: Run, arguments: tuple[str, ...], said: str) -> None:
    figure, *options = arguments
    code, out, err = prepaid("drill", figure, "2026-03", *options)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == said


def test_credit_notes(march: Engine, prepaid: Run) -> None:
    credit_note(march, 4, "2026-03-20", "20.00", "3.80")
    publish(march, "2026-03", "2026-03")
    _, out, _ = prepaid("drill", "credit-notes", "2026-03")
    assert out.splitlines()[-1] == "23.80 USD over 1 credit note, as published"


def test_csv_has_all_rows_with_all_decimals(march: Engine, prepaid: Run, tmp_path: Path) -> None:
    insert(march, [Term(D(2026, 3, 9), "1.00", 3, customer=n) for n in range(10, 80)])
    publish(march, "2026-03", "2026-03")
    target = tmp_path / "plans.csv"
    code, out, _ = prepaid("drill", "mrr", "2026-03", "--csv", str(target))
    assert (code, out) == (0, "212.50 USD over 73 plans, as published\n")
    with target.open(newline="") as file:
        found = list(csv.DictReader(file))
    ((published,),) = rows(march, "SELECT sum(mrr) FROM revenue.mrr WHERE month = '2026-03-01'")
    assert sum(Decimal(row["amount"]) for row in found) == published
    assert len(found) == 73
    _, out, _ = prepaid("drill", "mrr", "2026-03")
    assert len(out.splitlines()) == 1 + 50 + 2
    assert "… and 23 more: --csv FILE has all of them" in out
    _, out, err = prepaid("drill", "mrr", "2026-03", "--csv", "-")
    assert len(out.splitlines()) == 74
    assert err == "212.50 USD over 73 plans, as published\n"


def test_a_file_that_cannot_be_written(march: Engine, prepaid: Run, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "plans.csv"
    code, _, err = prepaid("drill", "mrr", "2026-03", "--csv", str(target))
    assert (code, err) == (1, f"prepaid: {target} cannot be written: No such file or directory\n")


def test_a_formula_stays_text(march: Engine, prepaid: Run) -> None:
    with march.begin() as connection:
        connection.execute(
            text("UPDATE prepaid.customers SET customer_ref = '=cmd|x' WHERE customer_ref = 'C1'")
        )
    _, out, _ = prepaid("drill", "mrr", "2026-03", "--csv", "-")
    assert ",'=cmd|x," in out


def test_what_has_changed_since_is_said(march: Engine, prepaid: Run) -> None:
    insert(march, [Term(D(2026, 3, 9), "1.00", customer=9)])
    code, _, err = prepaid("drill", "mrr", "2026-03")
    assert (code, err) == (
        0,
        "190.17 USD over 4 plans, but the published figure is 189.17 USD over 3 plans: the service"
        " plans have"
        " changed since the figures were computed as of 2026-03-31. Run 'prepaid backfill 2026-03"
        " 2026-03'\n",
    )


def test_what_was_activated_after_the_cut_off_is_not_behind_it(march: Engine) -> None:
    insert(march, [Term(D(2026, 3, 9), activated_on=D(2026, 4, 1), customer=9)])
    assert_behind(march, D(2026, 3, 1))


def test_wrong_usage_says_what_is_right(march: Engine, prepaid: Run) -> None:
    code, _, err = prepaid("drill", "mrr", "2026-03", "--kind", "new")
    assert (code, "--kind is for activations" in err) == (2, True)
    code, _, err = prepaid("drill", "mrr", "2025-03")
    assert (code, err) == (
        1,
        "prepaid: there are no figures for 2025-03: run 'prepaid backfill 2025-03 2025-03'\n",
    )


FUNCTIONS = ("mrr", "activations", "movements", "credit_notes")


@pytest.mark.parametrize("team", ["finance", "leadership", "engineering"])
def test_who_reads_the_figures_reads_what_is_behind(world: World, march: Engine, team: str) -> None:
    person = world.officer(f"{team}_drills", team)
    with acting_as(march, person) as connection:
        for name in FUNCTIONS:
            ask = text(f"SELECT * FROM revenue.plans_behind_{name}('2026-03-15')")  # noqa: S608
            found = connection.execute(ask)
            assert not {"name", "customer_name", "email"} & set(found.keys())
            assert bool(found.all()) == (name != "credit_notes")


def test_others_do_not(world: World, march: Engine) -> None:
    person = world.officer("care_drills", "customer_success")
    for name in FUNCTIONS:
        with (
            pytest.raises(DBAPIError, match="permission denied"),
            acting_as(march, person) as connection,
        ):
            connection.execute(text(f"SELECT revenue.plans_behind_{name}('2026-03-01')"))


def test_a_month_without_figures_is_said_by_the_function(march: Engine) -> None:
    with pytest.raises(DBAPIError, match="there are no figures for 2025-03: run prepaid backfill"):
        rows(march, "SELECT * FROM revenue.plans_behind_mrr('2025-03-01')")
