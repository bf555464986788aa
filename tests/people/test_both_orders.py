"""Whoever had a hand in it is never an approver, whatever came first: all pairs of acts by one person."""

from collections.abc import Callable
from itertools import permutations

import pytest
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database.connections import sqlstate
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import accounts, decisions
from tests.people.acts import ACTS, APPROVE, Act, Scene, scenes
from tests.world import World, context

Person = Callable[[World, str], str]
# The functions that act with the owner's rights and that a team of people may call: their acts. A stable
# one only reads.
_CATALOGUE = """
SELECT DISTINCT p.proname FROM pg_proc p
CROSS JOIN unnest(ARRAY['finance', 'customer_success', 'leadership', 'engineering']) team
WHERE p.pronamespace = 'prepaid'::regnamespace AND p.prosecdef AND p.provolatile = 'v'
  AND has_function_privilege(team, p.oid, 'EXECUTE')
"""
# Who approved what is Paid, and what their names stand for in the audit log before it was.
_OWN = """
SELECT k.service_plan_id, e.person, e.what
FROM prepaid.tasks k
JOIN prepaid.invoices i USING (invoice_id)
JOIN prepaid.four_eyes e USING (task_id)
WHERE k.kind = 'payment_verification' AND k.status = 'Done' AND k.decision = 'approved'
  AND e.person IN (k.decided_by, k.first_approved_by) AND i.status = 'Paid'
"""


def pairs() -> list[tuple[Act, Act]]:
    """Those in which somebody approves: the two orders of each, and of approving in two ways."""
    deciding = [act for act in ACTS if act.function in ("decide_tasks", "decide_as_seen")]
    return [pair for pair in permutations(ACTS, 2) if any(act in deciding for act in pair)]


def test_the_acts_are_those_of_the_catalogue(module_world: World) -> None:
    """A new function that people may call needs a row in acts.py."""
    there = {name for (name,) in module_world.rows(_CATALOGUE)}
    assert {act.function for act in ACTS} == there


@pytest.fixture(scope="module")
def acted(module_world: World, person: Person) -> dict[tuple[str, str, bool], Scene]:
    """Each pair on a plan of its own, by one person of every team, with and without a second approver.

    (first act, second act, above the limit) -> the plan. Then the pipeline has gone on.
    """
    world = module_world
    asked = [(first, second, two) for first, second in pairs() for two in (False, True)]
    ready = scenes(world, len(asked))
    ann, bob = person(world, "finance"), person(world, "finance")
    for team in ("customer_success", "engineering"):
        accounts.add(world.engine, ann, team)
    done = {}
    for (first, second, two), scene in sorted(
        zip(asked, ready, strict=True), key=lambda pair: pair[0][2]
    ):
        if two:
            world.sql(
                "INSERT INTO prepaid.approval_limits VALUES ('USD', 1) ON CONFLICT DO NOTHING"
            )
            assert _attempt(world, bob, scene, APPROVE)
        # Each can be done at first. (An erasure is refused while the customer has anything open.)
        assert _attempt(world, ann, scene, first) is (first.function != "erase_customer"), first
        _attempt(world, ann, scene, second)
        done[first.function, second.function, two] = scene
    world.sql(
        "UPDATE prepaid.holds SET released_at = now(), released_by = 'x' WHERE released_at IS NULL"
    )
    world.sql("DELETE FROM prepaid.approval_limits")
    world.open()
    world.match()
    world.settle()
    return done


def _attempt(world: World, person: str, scene: Scene, act: Act) -> bool:
    """Whether it was done, and not refused."""
    try:
        act.do(world, person, scene)
    except DBAPIError as error:
        if sqlstate(error) != "P0001":
            raise
        return False
    return True


def test_nobody_paid_by_their_own_hand(
    module_world: World, acted: dict[tuple[str, str, bool], Scene]
) -> None:
    assert len(acted) > 80
    by_plan = {scene.plan: pair for pair, scene in acted.items()}
    own = [(by_plan.get(plan), person, what) for plan, person, what in module_world.rows(_OWN)]
    assert own == []
    assert [
        (check.name, line)
        for check in invariants.run(module_world.engine, context())
        for line in check.findings
        if check.name.startswith(("04", "09", "15", "22", "23", "24"))
    ] == []


def test_without_a_hand_it_is_paid(
    module_world: World, acted: dict[tuple[str, str, bool], Scene]
) -> None:
    """The pairs are no hindrance by themselves: what gives no hand is Paid in both orders."""
    for act in ACTS:
        if act.hand or act is APPROVE:
            continue
        for pair in ((APPROVE.function, act.function), (act.function, APPROVE.function)):
            assert module_world.status(acted[*pair, False].plan) == "Active", pair


def test_a_hand_takes_the_approval_away(
    module_world: World, acted: dict[tuple[str, str, bool], Scene]
) -> None:
    """Finance is asked again: the task is open, and the plan waits in the list."""
    for function in (
        "assign_record",
        "release_holds",
        "set_customer_email",
        "correct_email_address",
        "change_plan",
    ):
        for pair in ((APPROVE.function, function), (function, APPROVE.function)):
            for two in (False, True):
                plan = acted[*pair, two].plan
                assert module_world.status(plan) == "Pending", (pair, two)
                tasks = module_world.rows(
                    "SELECT status, first_approved_by IS NULL FROM prepaid.tasks"
                    " WHERE service_plan_id = :p AND kind = 'payment_verification'"
                    " AND status <> 'Withdrawn'",
                    p=plan,
                )
                assert [status for status, _ in tasks] == ["Open"], (pair, two, tasks)


def test_the_withdrawal_is_in_the_story_and_another_approves(world: World, person: Person) -> None:
    """The issue's own case: approved, then the same person assigns an unreferenced record."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    ann, bob = person(world, "finance"), person(world, "finance")
    task = world.task(plan)
    decisions.decide(world.engine, ann, [task], "approve", "seen")
    spare = world.record(None, "10.73") or 0
    world.match()
    decisions.assign(world.engine, ann, spare, world.invoice(plan), "it is this one")
    assert world.rows(
        "SELECT before, detail, actor FROM prepaid.audit_log WHERE event = 'approval_withdrawn'"
    ) == [("approved", f"{ann} assigned the payment to the invoice: somebody else decides", ann)]
    world.match()
    world.settle()
    assert world.status(plan) == "Pending"
    decisions.decide(world.engine, bob, [world.task(plan)], "approve", "seen")
    world.settle()
    assert world.status(plan) == "Active"


def test_the_gate_of_step_7_checks_once_more(world: World, person: Person) -> None:
    """A change that no function knows of: by a statement of the owner's, under the person's name."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    ann = person(world, "finance")
    decisions.decide(world.engine, ann, [world.task(plan)], "approve", "seen")
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT set_config('prepaid.actor', '{ann}', true)")
        connection.exec_driver_sql("UPDATE prepaid.customers SET email = 'new@example.com'")
    world.settle()
    assert world.status(plan) == "Pending"
    assert (
        world.sql("SELECT status FROM prepaid.tasks WHERE task_id = :t", t=world.task(plan))
        == "Open"
    )


def test_a_data_change_is_somebodys_as_long_as_it_is_in_force(world: World, person: Person) -> None:
    """Another column changed by another person, or a job that failed, does not take a hand away."""
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    ann, bob = person(world, "finance"), person(world, "finance")

    def change(who: str, statement: str) -> None:
        with world.engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT set_config('prepaid.actor', '{who}', true)")
            connection.exec_driver_sql(statement)

    change(ann, "UPDATE prepaid.subscriptions SET price = 5, quantity = 2")
    change("import", "UPDATE prepaid.subscriptions SET quantity = 1")
    change("import", "UPDATE prepaid.customers SET name = 'Other'")
    with pytest.raises(Exception, match=f"{ann} last changed the subscription"):
        decisions.decide(world.engine, ann, [world.task(plan)], "approve", None)
    change("import", "UPDATE prepaid.subscriptions SET price = NULL")
    assert decisions.decide(world.engine, ann, [world.task(plan)], "approve", None) == 1
    assert decisions.decide(world.engine, bob, [world.task(plan)], "approve", "as well") == 1


def test_where_nobody_may_decide_the_task_says_so(world: World, person: Person) -> None:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    ann = person(world, "finance")
    spare = world.record(None, "10.73") or 0
    world.match()
    decisions.assign(world.engine, ann, spare, world.invoice(plan), "it is this one")
    world.match()
    world.sql(
        "INSERT INTO prepaid.desk_accounts AS d (person, disabled)"
        " SELECT DISTINCT m.person, true FROM prepaid.team_members m WHERE m.person <> :ann"
        " ON CONFLICT (person) DO UPDATE SET disabled = true",
        ann=ann,
    )
    task = world.task(plan)
    with pytest.raises(Exception, match="nobody in finance may decide it, so add somebody to the"):
        decisions.decide(world.engine, ann, [task], "approve", None)
    assert world.rows("SELECT task_id, team FROM prepaid.tasks_nobody_may_decide") == [
        (task, "finance")
    ]
