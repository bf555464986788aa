"""What a report says of the month as a whole: course, process, checks, fingerprint, changes."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from prepaid_pipeline.people import decisions
from prepaid_pipeline.revenue import validation
from prepaid_pipeline.revenue.figures import next_month
from prepaid_pipeline.revenue.rules import INPUTS, MONTHLY_FIGURES
from prepaid_pipeline.revenue.validation import Finding
from tests.budget import examples
from tests.revenue.history import RUN, Term, clear, insert, publish, rows
from tests.revenue.test_report_versions import CLOSED, LATER, MARCH, report, stored
from tests.revenue.test_reversals import BACK, PAID, credit_note, invoice, land, record
from tests.world import World, context

D = date
NOVEMBER, SUMMER = D(2026, 11, 1), D(2026, 7, 20)


def document(engine: Engine, month: date = MARCH) -> dict[str, Any]:
    found = stored(engine, month)[-1].document
    assert found is not None
    return found


def fingerprints(engine: Engine, first: str, last: str, as_of: date) -> list[str]:
    publish(engine, first, last, as_of, replay=True)
    found = rows(
        engine,
        "SELECT fingerprint FROM revenue.months"
        " WHERE month BETWEEN CAST(:a AS date) AND CAST(:b AS date) ORDER BY month",
        a=f"{first}-01",
        b=f"{last}-01",
    )
    return [row[0] for row in found]


def test_the_course_is_thirteen_months_and_ends_with_the_headline(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2025, 1, 9), "120.00", 24, customer=1),
            Term(D(2026, 2, 5), "8.00", customer=2),
            Term(D(2026, 3, 5), "1.00", 3, customer=2, kind="renewal"),
            Term(D(2026, 3, 6), "30", 1, customer=3, currency="JPY"),
        ],
    )
    publish(engine, "2025-01", "2026-03", CLOSED)
    report(engine, CLOSED)
    jpy, usd = document(engine)["course"]
    assert [point["month"] for point in usd["months"]] == [
        *(f"2025-{n:02}" for n in range(3, 13)),
        "2026-01",
        "2026-02",
        "2026-03",
    ]
    assert usd["months"][-2] == {
        "month": "2026-02",
        "new": 1,
        "renewals": 0,
        "new_net": "8.00",
        "renewal_net": "0.00",
        "mrr": "13.00",
    }
    assert usd["months"][-1] == {
        "month": "2026-03",
        "new": 0,
        "renewals": 1,
        "new_net": "0.00",
        "renewal_net": "1.00",
        "mrr": "5.33",
    }
    assert usd["months"][-1]["mrr"] == stored(engine)[-1].figures[0]["mrr"]
    assert (jpy["currency"], jpy["months"][-1]["mrr"], len(jpy["months"])) == ("JPY", "30", 13)


def test_a_currency_that_is_gone_is_no_course(engine: Engine) -> None:
    insert(
        engine,
        [
            Term(D(2025, 1, 9)),
            Term(D(2025, 1, 9), customer=2, currency="EUR"),
            Term(D(2026, 3, 9), customer=3),
        ],
    )
    publish(engine, "2025-01", "2026-03", CLOSED)
    report(engine, CLOSED)
    assert [series["currency"] for series in document(engine)["course"]] == ["USD"]


@pytest.fixture
def busy(world: World) -> World:
    """Renewals of November: one approved, one first rejected and late, one waits, one is held."""
    world.tax_rate("0.1")
    for _ in range(3):
        world.due_renewal()
    nowhere = world.due_renewal(country="FR")
    first, second, *_ = world.open()
    assert world.holds(nowhere + 1) or world.sql("SELECT count(*) FROM prepaid.holds") == 1
    for plan in (first, second):
        world.record(world.invoice(plan))
    world.match()
    officer, at_once, late = world.officer(), D(2026, 11, 3), D(2026, 11, 9)
    decisions.decide(world.engine, officer, [world.task(first)], "approve", None, at_once)
    decisions.decide(world.engine, officer, [world.task(second)], "reject", "who?", at_once)
    decisions.decide(world.engine, officer, [world.task(second)], "approve", None, late)
    return world


def test_how_the_process_ran(busy: World) -> None:
    """Opened on 2 November and due on the 5th; decided one and seven days later; one is open."""
    report(busy.engine, D(2026, 11, 20), NOVEMBER)
    found = document(busy.engine, NOVEMBER)["process"]
    assert found["tasks"] == [
        {
            "kind": "payment_verification",
            "opened": 3,
            "decided": 2,
            "rejected": 1,
            "withdrawn": 0,
            "open": 1,
            "late": 2,
            "median_hours": "96.0",
            "longest_hours": "168.0",
        }
    ]
    holds = [(h["reason_code"], h["placed"], h["released"], h["held"]) for h in found["holds"]]
    assert sorted(holds) == [("no_tax_rate", 1, 0, 1), ("payment_rejected", 1, 1, 0)]


def test_what_a_person_does_now_has_its_hours_by_the_clock(world: World) -> None:
    """Without a business date of a replay: from the opening to the decision, a moment here."""
    world.tax_rate("0.1")
    today = world.sql("SELECT prepaid.today()")
    world.due_renewal(today)
    (plan,) = world.open(context(today))
    world.record(world.invoice(plan), occurred_at=f"{today}T10:00Z")
    world.match(context(today))
    world.approve(plan)
    report(world.engine, today, today.replace(day=1))
    (tasks,) = document(world.engine, today.replace(day=1))["process"]["tasks"]
    assert (tasks["decided"], tasks["late"], tasks["median_hours"]) == (1, 0, "0.0")


def test_nothing_of_the_process_is_null(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    report(engine, CLOSED)
    assert document(engine)["process"] is None
    assert document(engine)["quality"] is None


def test_the_checks_of_the_runs_behind_it(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 5))])
    rule, warning = MONTHLY_FIGURES[0].rules[0], INPUTS[0].rules[0]

    def note(stage: str, run_id: str, passed: bool, as_of: date = CLOSED) -> None:
        finding = Finding(
            "mrr", warning if stage == "inputs" else rule, passed, 0 if passed else 7, (), ()
        )
        validation.keep(engine, stage, [finding], run_id=run_id, as_of=as_of)

    note("figures", "another run", passed=False)
    note("figures", RUN, passed=True)
    note("inputs", "first", passed=True)
    note("inputs", "second", passed=False)
    note("inputs", "later", passed=True, as_of=LATER)
    note("report", RUN, passed=True)
    report(engine, CLOSED)
    found = document(engine)["quality"]
    assert [(c["stage"], c["rule"], c["warning"], c["passed"], c["failing"]) for c in found] == [
        ("inputs", warning.name, True, False, 7),
        ("figures", rule.name, False, True, 0),
        ("report", rule.name, False, True, 0),
    ]
    assert found[0]["as_of"] == CLOSED.isoformat()


def test_old_results_go_and_those_of_a_month_stay(engine: Engine) -> None:
    finding = Finding("mrr", MONTHLY_FIGURES[0].rules[0], True, 0, (), ())
    publish(engine, "2026-03", "2026-03")
    for run_id in ("gone", RUN):
        validation.keep(engine, "figures", [finding], run_id=run_id, as_of=CLOSED)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE revenue.check_results SET checked_at = checked_at - interval '8 days'")
        )
    validation.keep(engine, "report", [finding], run_id="new", as_of=CLOSED)
    assert rows(engine, "SELECT run_id FROM revenue.check_results ORDER BY 1") == [("new",), (RUN,)]


TERMS = [Term(D(2026, 1, 5), "7.00", 3, customer=n, kind="renewal") for n in range(3)] + [
    Term(D(2026, 3, 9), customer=8),
    Term(D(2026, 4, 9), customer=9),
]


def test_the_same_inputs_have_the_same_fingerprint_whatever_the_range(engine: Engine) -> None:
    insert(engine, TERMS)
    whole = fingerprints(engine, "2025-12", "2026-06", SUMMER)
    assert len(set(whole)) == 7
    assert all(len(print_) == 64 for print_ in whole)
    assert fingerprints(engine, "2026-03", "2026-03", SUMMER) == [whole[3]]
    assert fingerprints(engine, "2025-12", "2026-06", D(2026, 7, 9)) == whole
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prepaid.service_plans SET status = 'Expired'")
        connection.exec_driver_sql("SET DateStyle = 'German'")
    assert fingerprints(engine, "2025-12", "2026-06", SUMMER) == whole


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (
            "UPDATE prepaid.service_plans SET recurring_amount = 8 WHERE start_date = '2026-03-09'",
            3,
        ),
        ("UPDATE prepaid.service_plans SET net_amount = 8 WHERE start_date = '2026-03-09'", 3),
        ("UPDATE prepaid.service_plans SET kind = 'renewal' WHERE start_date = '2026-03-09'", 3),
        (
            "UPDATE prepaid.service_plans SET activated_on = '2026-04-30'"
            " WHERE start_date = '2026-03-09'",
            3,
        ),
        (
            "UPDATE prepaid.service_plans SET status = 'Cancelled', end_date = '2026-05-02',"
            " full_end_date = '2026-05-09' WHERE start_date = '2026-04-09'",
            5,
        ),
        (
            "UPDATE prepaid.service_plans SET activated_on = NULL, status = 'Pending'"
            " WHERE start_date = '2026-04-09'",
            4,
        ),
        (
            "UPDATE prepaid.service_plans s SET customer_id = (SELECT max(customer_id) FROM"
            " prepaid.customers) WHERE start_date = '2026-03-09'",
            3,
        ),
    ],
)
def test_a_change_shows_from_its_month_on(engine: Engine, change: str, first: int) -> None:
    insert(engine, TERMS)
    before = fingerprints(engine, "2025-12", "2026-06", SUMMER)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(change)
        connection.exec_driver_sql("SET session_replication_role = origin")
    after = fingerprints(engine, "2025-12", "2026-06", SUMMER)
    assert [a == b for a, b in zip(before, after, strict=True)] == [n < first for n in range(7)]


def test_records_and_credit_notes_show_in_their_own_month(engine: Engine) -> None:
    invoice(engine)
    land(engine, [record("Success", PAID)])
    seen = [fingerprints(engine, "2026-02", "2026-04", LATER)]
    land(engine, [record("Refunded", BACK, "30.00")])
    seen.append(fingerprints(engine, "2026-02", "2026-04", LATER))
    credit_note(engine, 0, "2026-04-03", "10.00", "0")
    seen.append(fingerprints(engine, "2026-02", "2026-04", LATER))
    assert [a == b for a, b in zip(seen[0], seen[1], strict=True)] == [True, False, True]
    assert [a == b for a, b in zip(seen[1], seen[2], strict=True)] == [True, True, False]


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.builds(
            Term,
            start=st.dates(D(2026, 1, 1), D(2026, 5, 28)),
            months=st.sampled_from([1, 3]),
            price=st.sampled_from(["10.00", "7.77"]),
            customer=st.integers(1, 30),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda term: term.customer,
    ),
    st.randoms(),
)
def test_the_order_of_terms_does_not_matter(
    module_world: World, terms: list[Term], random: Any
) -> None:
    engine = module_world.engine
    clear(engine)
    insert(engine, sorted(terms, key=lambda term: term.customer))
    before = fingerprints(engine, "2026-01", "2026-06", SUMMER)
    order = [row[0] for row in rows(engine, "SELECT service_plan_id FROM prepaid.service_plans")]
    random.shuffle(order)
    with engine.begin() as connection:
        # Rewritten row by row: another physical order, and another order of a scan.
        for plan in order:
            connection.execute(
                text(
                    "UPDATE prepaid.service_plans SET anchor_date = anchor_date"
                    " WHERE service_plan_id = :plan"
                ),
                {"plan": plan},
            )
    assert fingerprints(engine, "2026-01", "2026-06", SUMMER) == before


def test_a_version_has_the_fingerprint_of_its_inputs(engine: Engine) -> None:
    insert(engine, TERMS)
    report(engine, CLOSED)
    insert(engine, [Term(D(2026, 3, 30), "5.00", customer=20)])
    report(engine, LATER)
    first, second = stored(engine)
    assert first.fingerprint != second.fingerprint
    assert second.fingerprint == fingerprints(engine, "2026-03", "2026-03", LATER)[0]


def test_a_new_version_says_what_changed_by_how_much_and_why(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 2, 5)), Term(D(2026, 3, 9), customer=2)])
    report(engine, CLOSED)
    assert document(engine)["changes"] is None
    invoice(engine)
    land(engine, [record("Success", PAID), record("Refunded", BACK)])
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=n) for n in (3, 4)])
    insert(engine, [Term(D(2026, 4, 9), customer=5)])
    report(engine, LATER)
    changes = document(engine)["changes"]
    today = rows(engine, "SELECT prepaid.today()")[0][0].isoformat()
    assert changes["since"] == 1
    assert {
        "currency": "USD",
        "figure": "new_plans",
        "before": "1",
        "after": "3",
        "difference": "2",
    } in changes["figures"]
    assert {
        "currency": "USD",
        "figure": "reversals",
        "before": "0.00",
        "after": "100.00",
        "difference": "100.00",
    } in changes["figures"]
    # The invoice's term of February is one of three: an earlier one can change who is new.
    assert changes["causes"] == [
        {"cause": "payment_records", "times": 1, "first_on": today, "last_on": today},
        {"cause": "terms_imported", "times": 3, "first_on": today, "last_on": today},
    ]


def test_what_was_known_before_is_no_cause(engine: Engine) -> None:
    insert(engine, [Term(D(2026, 3, 9), customer=n) for n in range(5)])
    report(engine, CLOSED)
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=9)])
    report(engine, LATER)
    insert(engine, [Term(D(2026, 3, 9), "2.50", customer=10)])
    report(engine, LATER + timedelta(days=1))
    causes = [
        version.document["changes"]["causes"] for version in stored(engine)[1:] if version.document
    ]
    assert [[c["times"] for c in found] for found in causes] == [[1], [1]]


def test_a_plan_that_is_paid_late_or_cut_is_a_cause(world: World) -> None:
    world.tax_rate("0.1")
    world.due_renewal(D(2026, 11, 2))
    (plan,) = world.open()
    report(world.engine, D(2026, 12, 8), NOVEMBER)
    world.pay_and_approve(plan)
    world.settle(context(D(2026, 11, 4)))
    report(world.engine, D(2026, 12, 9), NOVEMBER)
    # The audit log is append-only: the day on which the term is cut is the clock's.
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE prepaid.service_plans SET status = 'Cancelled',"
                " full_end_date = end_date, end_date = '2026-11-20'"
                " WHERE service_plan_id = :plan"
            ),
            {"plan": plan},
        )
    report(world.engine, D(2026, 12, 10), NOVEMBER)
    told = [
        v.document["changes"]["causes"] for v in stored(world.engine, NOVEMBER)[1:] if v.document
    ]
    assert [[(c["cause"], c["times"]) for c in causes] for causes in told] == [
        [("terms_activated", 1)],
        [("terms_cut", 1)],
    ]
    assert next_month(NOVEMBER) == D(2026, 12, 1)
