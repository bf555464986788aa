"""History and orders: kinds, anchors, and known terms that are never changed."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.importer.folders import BASE, rows, take

HEADER = "subscription_ref,start_date,end_date,price,status\n"


@pytest.fixture
def subscribed(engine: Engine, folder: Path) -> Engine:
    take(engine, folder, {name: text for name, text in BASE.items() if name != "service_plans"})
    return engine


def _history(ref: str, *days: str, status: str = "Expired") -> str:
    """Terms between the days; none between two days that are joined by a slash."""
    terms = [day.split("/") for day in days]
    spans = zip((pair[-1] for pair in terms), (pair[0] for pair in terms[1:]), strict=False)
    return "".join(f"{ref},{start},{end},10,{status}\n" for start, end in spans)


def _subscriptions(cases: dict[str, str]) -> str:
    """A subscription for each case (reference: plan_code)."""
    head, *_ = BASE["subscriptions"].splitlines()
    lines = [f"{case},C-1,{plan},2026-01-01,true,," for case, plan in cases.items()]
    return "\n".join([head, *lines])


# Case: boundaries, anchors of the terms, anchor of the subscription, plan.
ANCHORS = {
    "month end": (
        ("2026-01-31", "2026-02-28", "2026-03-31"),
        ["2026-01-31"] * 2,
        "2026-01-31",
        "basic",
    ),
    "30 March": (
        ("2026-02-28", "2026-03-30", "2026-04-30"),
        ["2026-03-30"] * 2,
        "2026-03-30",
        "basic",
    ),
    "the end counts": (("2026-02-28", "2026-03-31"), ["2026-03-31"], "2026-03-31", "basic"),
    "leap day": (
        ("2023-02-28", "2024-02-29", "2025-02-28"),
        ["2024-02-29"] * 2,
        "2024-02-29",
        "basic",
    ),
    "no month end": (
        ("2026-01-15", "2026-02-15", "2026-03-15"),
        ["2026-01-15"] * 2,
        "2026-01-15",
        "basic",
    ),
    "latest unbroken run": (
        ("2026-01-31", "2026-02-28/2026-04-10", "2026-05-10", "2026-06-10"),
        ["2026-01-31", "2026-04-10", "2026-04-10"],
        "2026-04-10",
        "basic",
    ),
    "term in days": (
        ("2026-06-30", "2026-07-30/2026-08-10", "2026-09-09", "2026-10-09"),
        ["2026-06-30", "2026-08-10", "2026-08-10"],
        "2026-08-10",
        "flex",
    ),
}


def test_the_anchor_is_the_first_boundary_with_the_highest_day(
    subscribed: Engine, folder: Path
) -> None:
    history = "".join(_history(case, *days) for case, (days, *_) in ANCHORS.items())
    plans = {case: plan for case, (*_, plan) in ANCHORS.items()}
    files = {"subscriptions": _subscriptions(plans), "service_plans": HEADER + history}
    take(subscribed, folder, files)
    query = """
        SELECT subscription_ref, array_agg(p.anchor_date::text ORDER BY start_date),
               s.anchor_date::text, plan_code
        FROM prepaid.subscriptions s JOIN prepaid.service_plans p USING (subscription_id)
        JOIN prepaid.plans l ON l.plan_id = s.plan_id
        GROUP BY s.subscription_id, plan_code ORDER BY s.subscription_id"""
    assert rows(subscribed, query) == [
        (case, *expected) for case, (_, *expected) in ANCHORS.items()
    ]


def test_later_history_goes_on_where_the_known_one_ends(subscribed: Engine, folder: Path) -> None:
    first = HEADER + _history("S-5", "2026-01-28", "2026-02-28")
    take(subscribed, folder, {"service_plans": first})
    report = take(
        subscribed,
        folder,
        {"service_plans": first + _history("S-5", "2026-02-28", "2026-03-30", "2026-04-30")},
    )["service_plans"]
    assert (report.rows, report.added, report.differences) == (3, 2, [])
    query = """SELECT kind, anchor_date::text, previous_plan_id IS NULL
               FROM prepaid.service_plans ORDER BY start_date"""
    assert rows(subscribed, query) == [
        ("new", "2026-01-28", True),
        ("renewal", "2026-03-30", False),
        ("renewal", "2026-03-30", False),
    ]
    query = "SELECT anchor_date::text FROM prepaid.subscriptions WHERE subscription_ref = 'S-5'"
    assert rows(subscribed, query) == [("2026-03-30",)]


# Case: plan, end of the term before, start of the next one, its kind. Grace is 7 days, but at most
# half of a term in days: 3 of a week.
KINDS = {
    "at once": ("basic", "2026-03-01", "2026-03-01", "renewal"),
    "last day of grace": ("basic", "2026-03-01", "2026-03-08", "renewal"),
    "grace is over": ("basic", "2026-03-01", "2026-03-09", "reactivation"),
    "thirty days": ("flex", "2026-03-01", "2026-03-08", "renewal"),
    "week in grace": ("week", "2026-03-01", "2026-03-04", "renewal"),
    "week out of grace": ("week", "2026-03-01", "2026-03-05", "reactivation"),
}


@pytest.mark.parametrize("status", ["Expired", "Pending"])
def test_within_grace_it_is_a_renewal(subscribed: Engine, folder: Path, status: str) -> None:
    history = "".join(
        _history(case, "2026-02-01", end) + f"{case},{start},2026-05-01,10,{status}\n"
        for case, (_, end, start, _) in KINDS.items()
    )
    files = {
        "plans": "plan_code,name,term,currency,price\nweek,Week,P1W,USD,3\n",
        "subscriptions": _subscriptions({case: plan for case, (plan, *_) in KINDS.items()}),
        "service_plans": HEADER + history,
    }
    take(subscribed, folder, files)
    query = """
        SELECT subscription_ref, array_agg(kind ORDER BY start_date)
        FROM prepaid.service_plans JOIN prepaid.subscriptions USING (subscription_id)
        GROUP BY subscription_ref"""
    assert dict(rows(subscribed, query)) == {
        case: ["new", kind] for case, (*_, kind) in KINDS.items()
    }


def test_an_order_waits_for_the_pipeline(subscribed: Engine, folder: Path) -> None:
    history = HEADER + _history("S-5", "2026-01-31", "2026-02-28")
    order = "S-5,2026-11-03,2026-12-03,7.50,Pending\n"
    take(subscribed, folder, {"service_plans": history + order})
    query = """
        SELECT origin, status, kind, price, opened_on, planned_start, anchor_date,
               retrieved_at, net_amount, activated_on, previous_plan_id IS NOT NULL
        FROM prepaid.service_plans WHERE status = 'Pending'"""
    start = date(2026, 11, 3)
    assert rows(subscribed, query) == [
        ("pipeline", "Pending", "reactivation", 7.5, None, start, start, None, None, None, True)
    ]
    query = "SELECT event, after, actor FROM prepaid.audit_log WHERE event LIKE 'service_plan%'"
    assert rows(subscribed, query) == [("service_plan_opened", "Pending", "import")]


def test_a_cancelled_term_is_no_link_of_the_chain(subscribed: Engine, folder: Path) -> None:
    history = HEADER + _history("S-5", "2026-01-15", "2026-02-15")
    history += "S-5,2026-02-16,2026-03-15,10,Cancelled\nS-5,2026-02-17,2026-03-17,10,Active\n"
    take(subscribed, folder, {"service_plans": history})
    query = """
        SELECT p.status, previous.start_date::text, p.activated_on IS NULL
        FROM prepaid.service_plans p
        LEFT JOIN prepaid.service_plans previous ON previous.service_plan_id = p.previous_plan_id
        ORDER BY p.start_date"""
    assert rows(subscribed, query) == [
        ("Expired", None, False),
        ("Cancelled", "2026-01-15", True),
        ("Active", "2026-01-15", False),
    ]


KNOWN = "S-5,2026-10-15,2026-11-15,10.00,Active\n"
DIFFERENCES = {
    "S-5,2026-10-15,2026-11-15,10.00,Active\n": [],
    "S-5,2026-10-15,2026-11-20,10.00,Active\n": [
        "service_plans.csv:2:end_date: found '2026-11-20', but the known term has '2026-11-15' and "
        "is not changed"
    ],
    "S-5,2026-10-15,2026-11-15,9.00,Active\n": [
        "service_plans.csv:2:price: found '9.00', but the known term has '10.00' and is not changed"
    ],
    "S-5,2026-10-15,2026-11-15,10.00,Cancelled\n": [
        "service_plans.csv:2:status: found 'Cancelled', but the known term has 'Active' and is not "
        "changed"
    ],
    "S-5,2026-10-15,2026-11-15,10.00,Expired\n": [
        "service_plans.csv:2:status: found 'Expired', but the known term has 'Active' and is not "
        "changed"
    ],
    # Where the pipeline was faster than the file, nothing differs.
    "S-5,2026-10-15,2026-11-15,10.00,Pending\n": [],
}


def test_a_known_term_is_never_changed(subscribed: Engine, folder: Path) -> None:
    take(subscribed, folder, {"service_plans": HEADER + KNOWN})
    before = rows(subscribed, "SELECT to_jsonb(p) FROM prepaid.service_plans p")
    for line, differences in DIFFERENCES.items():
        report = take(subscribed, folder, {"service_plans": HEADER + line})["service_plans"]
        assert (report.status, report.differences) == ("unchanged", differences)
    assert rows(subscribed, "SELECT to_jsonb(p) FROM prepaid.service_plans p") == before


def test_a_term_that_ended_meanwhile_is_no_difference(subscribed: Engine, folder: Path) -> None:
    take(subscribed, folder, {"service_plans": HEADER + KNOWN})
    expired = {"service_plans": HEADER + KNOWN.replace("Active", "Expired")}
    report = take(subscribed, folder, expired, as_of=date(2026, 11, 15))["service_plans"]
    assert report.differences == []


def test_while_an_order_waits_no_later_term_is_taken(subscribed: Engine, folder: Path) -> None:
    order = "S-5,2026-11-03,2026-12-03,10.00,Pending\n"
    take(subscribed, folder, {"service_plans": HEADER + order})
    later = {"service_plans": HEADER + order + "S-5,2026-12-03,2027-01-03,10,Active\n"}
    # In the file itself it stands behind an order; alone it meets the one that waits.
    assert take(subscribed, folder, later)["service_plans"].status == "refused"
    alone = {"service_plans": later["service_plans"].replace(order, "")}
    (plan,) = rows(subscribed, "SELECT service_plan_id FROM prepaid.service_plans")
    assert take(subscribed, folder, alone)["service_plans"].errors == [
        f"service_plans.csv:2:start_date: found '2026-12-03', expected no new term while service "
        f"plan {plan[0]} of the subscription (2026-11-03 to 2026-12-03) waits for its payment"
    ]


def test_a_first_import_of_many_terms_leaves_all_constraints_in_place(
    subscribed: Engine, folder: Path
) -> None:
    query = """SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
               WHERE conrelid = 'prepaid.service_plans'::regclass ORDER BY 1"""
    before = rows(subscribed, query)
    head, *_ = BASE["subscriptions"].splitlines()
    refs = [f"W-{n}" for n in range(100)]
    lines = [f"{ref},C-1,basic,2016-01-15,true,," for ref in refs]
    months = [f"{2016 + n // 12}-{n % 12 + 1:02}-15" for n in range(102)]
    report = take(
        subscribed,
        folder,
        {
            "subscriptions": "\n".join([head, *lines]),
            "service_plans": HEADER + "".join(_history(ref, *months) for ref in refs),
        },
    )["service_plans"]
    assert report.added == 10_100
    assert rows(subscribed, query) == before
