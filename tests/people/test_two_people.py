"""Above the limit two different people approve; one is enough to reject."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.errors import NotAllowed, SettingError
from prepaid_pipeline.operations import installation, invariants
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings, load
from tests.people.conftest import sql_as
from tests.world import World, context

Person = Callable[[World, str], str]
STATE = (
    "SELECT status, decision, decided_by, first_approved_by FROM prepaid.tasks WHERE task_id = :t"
)
SIGNED = (
    "SELECT decision, decided_by FROM prepaid.sign_offs WHERE task_id = :t ORDER BY sign_off_id"
)


@pytest.fixture
def plan(limited: World) -> int:
    limited.due_renewal()
    (plan,) = limited.open()
    limited.record(limited.invoice(plan))
    limited.match()
    return plan


@pytest.fixture
def ann(limited: World, person: Person) -> str:
    return person(limited, "finance")


@pytest.fixture
def bob(limited: World, person: Person) -> str:
    return person(limited, "finance")


def findings(world: World) -> list[str]:
    return [said for check in invariants.run(world.engine, context()) for said in check.findings]


def decide(world: World, name: str, task: int, word: str = "approve", note: str = "seen") -> int:
    return decisions.decide(world.engine, name, [task], word, note)


def test_the_second_approval_counts(limited: World, plan: int, ann: str, bob: str) -> None:
    task = limited.task(plan)
    assert decide(limited, ann, task) == 1
    assert limited.rows(STATE, t=task) == [("Open", None, None, ann)]
    limited.settle()
    assert limited.status(plan) == "Pending"
    assert findings(limited) == []

    assert decide(limited, bob, task) == 1
    assert limited.rows(STATE, t=task) == [("Done", "approved", bob, ann)]
    assert limited.rows(SIGNED, t=task) == [("approved", ann), ("approved", bob)]
    limited.settle()
    assert limited.status(plan) == "Active"
    assert findings(limited) == []
    assert limited.rows(
        "SELECT event, before, after, actor FROM prepaid.audit_log WHERE entity = 'task'"
        " AND entity_id = :t ORDER BY audit_id",
        t=task,
    ) == [
        ("task_first_approved", "Open", "Open", ann),
        ("task_decided", "Open", "approved", bob),
    ]


def test_one_person_is_not_two(limited: World, plan: int, ann: str) -> None:
    task = limited.task(plan)
    decide(limited, ann, task)
    with pytest.raises(
        NotAllowed, match=f"task {task} cannot be decided: {ann} has approved it alr"
    ):
        decide(limited, ann, task, note="again")
    assert limited.rows(STATE, t=task) == [("Open", None, None, ann)]
    assert limited.rows(SIGNED, t=task) == [("approved", ann)]


def test_a_third_approval_adds_nothing(
    limited: World, plan: int, ann: str, bob: str, person: Person
) -> None:
    task = limited.task(plan)
    decide(limited, ann, task)
    decide(limited, bob, task)
    for name in (ann, bob, person(limited, "finance")):
        assert decide(limited, name, task, note="me too") == 0
    assert limited.rows(SIGNED, t=task) == [("approved", ann), ("approved", bob)]


@pytest.mark.parametrize("own", [True, False])
def test_one_rejection_is_enough(limited: World, plan: int, ann: str, bob: str, own: bool) -> None:
    """Also by the first of the two. After that it takes two again, and only then is it let go."""
    task = limited.task(plan)
    decide(limited, ann, task)
    assert decide(limited, ann if own else bob, task, "reject", "blocked account") == 1
    assert limited.holds(plan) == ["payment_rejected"]
    assert limited.rows(STATE, t=task) == [("Done", "rejected", ann if own else bob, None)]
    decide(limited, bob, task)
    assert limited.rows(STATE, t=task) == [("Open", None, None, bob)]
    assert limited.holds(plan) == ["payment_rejected"]
    assert findings(limited) == []
    decide(limited, ann, task)
    assert limited.rows(STATE, t=task) == [("Done", "approved", ann, bob)]
    assert limited.holds(plan) == []
    limited.settle()
    assert limited.status(plan) == "Active"
    assert findings(limited) == []


def test_a_release_between_two_approvals_asks_anew(
    limited: World, plan: int, ann: str, bob: str, person: Person
) -> None:
    task = limited.task(plan)
    decide(limited, ann, task, "reject", "blocked account")
    decide(limited, ann, task)
    decisions.release(limited.engine, bob, plan, "cleared up")
    assert limited.rows("SELECT status FROM prepaid.tasks WHERE task_id = :t", t=task) == [
        ("Withdrawn",)
    ]
    new = limited.task(plan)
    assert new != task
    with pytest.raises(NotAllowed, match=f"{bob} released a hold of the plan: somebody else decid"):
        decide(limited, bob, new)
    decide(limited, ann, new)
    assert decide(limited, person(limited, "finance"), new) == 1
    limited.settle()
    assert limited.status(plan) == "Active"


def test_who_has_seen_the_money_is_not_reminded(limited: World, plan: int, ann: str) -> None:
    """A first approval is in our own hands: the customer gets no reminder for it."""
    lost = "UPDATE prepaid.transactions SET outcome = 'superseded', invoice_id = NULL"
    with limited.engine.connect() as connection:
        connection.execute(text(lost))
        unpaid = connection.execute(text("SELECT service_plan_id FROM prepaid.unpaid_invoices"))
        assert unpaid.scalars().all() == [plan]
        connection.rollback()
    decide(limited, ann, limited.task(plan))
    limited.sql(lost)
    assert limited.rows("SELECT service_plan_id FROM prepaid.unpaid_invoices") == []


def test_up_to_the_limit_one_is_enough(limited: World, ann: str) -> None:
    limited.due_renewal()
    (plan,) = limited.open()
    limited.pay(plan)
    limited.sql("UPDATE prepaid.approval_limits SET amount = 10.73")
    decide(limited, ann, limited.task(plan))
    assert limited.rows(STATE, t=limited.task(plan)) == [("Done", "approved", ann, None)]


def test_a_limit_that_came_later(limited: World, plan: int, ann: str, bob: str) -> None:
    """What was decided stands; nobody's approval is taken back by a setting."""
    limited.sql("DELETE FROM prepaid.approval_limits")
    decide(limited, ann, limited.task(plan))
    limited.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 10)")
    assert decide(limited, bob, limited.task(plan)) == 0
    limited.settle()
    assert limited.status(plan) == "Active"
    assert findings(limited) == []


def test_the_owner_cannot_write_it_either(limited: World, plan: int, ann: str, bob: str) -> None:
    task = limited.task(plan)
    write = "UPDATE prepaid.tasks SET status = 'Done', decision = 'approved', decided_by = :by,"
    with pytest.raises(DBAPIError, match="needs the approval of two people"):
        limited.sql(write + " decided_at = now() WHERE task_id = :t", by=ann, t=task)
    decide(limited, ann, task)
    with pytest.raises(DBAPIError, match="tasks_approved_by_two_people"):
        limited.sql(write + " decided_at = now() WHERE task_id = :t", by=ann, t=task)


def test_the_view_says_what_is_missing(
    limited: World, plan: int, ann: str, bob: str, person: Person
) -> None:
    ask = (
        "SELECT approvals_needed, first_approved_by, may_decide, why_not"
        " FROM prepaid.payment_verifications"
    )
    assert sql_as(limited, ann, ask) == [(2, None, True, None)]
    decide(limited, ann, limited.task(plan))
    already = "you have approved it already, as the first of two"
    assert sql_as(limited, ann, ask) == [(2, ann, False, already)]
    assert sql_as(limited, bob, ask) == [(2, ann, True, None)]
    engineer = person(limited, "engineering")
    assert sql_as(limited, engineer, ask) == [(2, ann, False, "only finance decides on payments")]
    update = "UPDATE prepaid.payment_verifications SET decision = 'approved' WHERE may_decide"
    assert sql_as(limited, ann, update) == 0
    assert sql_as(limited, bob, update) == 1
    limited.settle()
    paid = f"invoice {limited.invoice(plan)} is already Paid"
    assert sql_as(limited, bob, ask) == [(2, ann, False, paid)]


def test_a_first_approval_goes_with_the_money_that_it_was_for(
    limited: World, person: Person
) -> None:
    """Another payment takes its place: both people look at that one."""
    limited.due_renewal()
    (plan,) = limited.open()
    limited.record(limited.invoice(plan), provider_ref="p1")
    limited.match()
    ann, bob = person(limited, "finance"), person(limited, "finance")
    first = limited.task(plan)
    decisions.decide(limited.engine, ann, [first], "approve", "seen")
    limited.record(
        limited.invoice(plan),
        provider_ref="p1",
        status="Chargeback",
        occurred_at="2026-11-02T11:00Z",
    )
    limited.record(limited.invoice(plan), provider_ref="p2", occurred_at="2026-11-02T12:00Z")
    limited.match()
    assert limited.task(plan) > first
    decisions.decide(limited.engine, bob, [limited.task(plan)], "approve", "seen")
    limited.settle()
    assert limited.status(plan) == "Pending"
    decisions.decide(limited.engine, ann, [limited.task(plan)], "approve", "this one as well")
    limited.settle()
    assert limited.status(plan) == "Active"


def test_migrate_writes_the_limits(limited: World, settings: Settings) -> None:
    def write(**environ: str) -> list[tuple[object, ...]]:
        installation.write_settings(limited.engine, load({"PREPAID_HOME": "x", **environ}))
        limits = "SELECT currency, amount::text FROM prepaid.approval_limits ORDER BY 1"
        return limited.rows(limits)

    above = "PREPAID_SECOND_APPROVAL_ABOVE"
    assert write(**{above: "USD:1000; EUR:900.50"}) == [("EUR", "900.50"), ("USD", "1000")]
    assert write(**{above: "EUR:900.50"}) == [("EUR", "900.50")]
    with pytest.raises(SettingError, match="there is no currency XXX"):
        write(**{above: "XXX:1"})
    assert write() == []
    assert limited.rows(
        "SELECT before, after, detail, actor FROM prepaid.audit_log"
        " WHERE event = 'approval_limit_changed' AND actor = 'prepaid migrate' ORDER BY audit_id"
    ) == [
        ("10", "1000", "USD", "prepaid migrate"),
        (None, "900.50", "EUR", "prepaid migrate"),
        ("1000", None, "USD", "prepaid migrate"),
        ("900.50", None, "EUR", "prepaid migrate"),
    ]


@pytest.mark.parametrize(
    "written", ["USD", "USD:", "USD:x", "usd:1", "USD:-1", "USD:NaN", "USD:1;USD:2"]
)
def test_limits_that_cannot_be_read(written: str) -> None:
    with pytest.raises(SettingError, match=r"PREPAID_SECOND_APPROVAL_ABOVE: .* cannot be read"):
        load({"PREPAID_SECOND_APPROVAL_ABOVE": written})
