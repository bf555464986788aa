"""Each control of the sign-offs is taken away in turn, and what it stopped then happens.

So each of them is needed, and each attempt in controls.py is one that is really stopped.
"""

from collections.abc import Callable
from threading import Thread
from time import sleep

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.people import decisions
from tests.people.controls import CONTROLS, Control
from tests.world import World

TABLES = (
    "tasks",
    "sign_offs",
    "task_assignments",
    "task_reminders",
    "approval_limits",
    "desk_accounts",
    "desk_sessions",
    "audit_log",
)
REWRITE = """
CREATE FUNCTION pg_temp.rewrite(name regproc, was text, becomes text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    body text := pg_get_functiondef(name);
BEGIN
    ASSERT length(body) - length(replace(body, was, '')) = length(was), was;
    EXECUTE replace(body, was, becomes);
END $$;
CREATE FUNCTION pg_temp.rewrite_view(name regclass, was text, becomes text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    body text := pg_get_viewdef(name);
BEGIN
    ASSERT length(body) - length(replace(body, was, '')) = length(was), was;
    EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', name, replace(body, was, becomes));
END $$;
"""
CATALOGUE = """
SELECT conname FROM pg_constraint
WHERE connamespace = 'prepaid'::regnamespace AND conrelid::regclass::text = ANY (:tables)
  AND contype IN ('c', 'p', 'u', 'f', 'x')
UNION SELECT tgname FROM pg_trigger
WHERE tgrelid::regclass::text = ANY (:tables) AND NOT tgisinternal
UNION SELECT indexrelid::regclass::text FROM pg_index
WHERE indrelid::regclass::text = ANY (:tables) AND indisunique
"""


@pytest.fixture(scope="module")
def rows(module_world: World, person: Callable[[World, str], str]) -> dict[str, object]:
    """One task in each state, and people; what the {names} of controls.py stand for."""
    world = module_world
    world.tax_rate("0.0725")
    world.tax_rate("0.10", country="DE")
    ann, bob = person(world, "finance"), person(world, "finance")
    for _ in range(6):
        world.due_renewal()
    waiting, first, rejected, touched, paid, withdrawn = world.open()
    euros = world.plan("10.00", currency="EUR")
    world.subscription(world.customer(country="DE", currency="EUR"), euros)
    cheap = max(world.open())
    world.subscription(world.customer(country="DE", currency="EUR"), euros)
    unpaid = max(world.open())
    record = world.record("no such number", "1.00")
    world.pay(waiting, first, rejected, touched, withdrawn, cheap)
    world.pay_and_approve(paid)
    world.settle()
    for plan in (touched, withdrawn):
        decisions.decide(world.engine, bob, [world.task(plan)], "reject", "blocked account")
    old = world.task(withdrawn)
    decisions.release(world.engine, bob, withdrawn, "unblocked")
    decisions.release(world.engine, ann, touched, "unblocked")
    decisions.decide(world.engine, bob, [world.task(rejected)], "reject", "blocked account")
    # From now on two people for US dollars, and still one for euros.
    world.sql("INSERT INTO prepaid.approval_limits VALUES ('USD', 10)")
    decisions.decide(world.engine, ann, [world.task(first)], "approve", None)
    decisions.reassign(world.engine, ann, [world.task(waiting)], bob, "on holiday")
    return {
        "ann": ann,
        "bob": bob,
        "care": person(world, "customer_success"),
        "engineer": person(world, "engineering"),
        "desk": "desk",
        "finance": "finance",
        "waiting": world.task(waiting),
        "first": world.task(first),
        "rejected": world.task(rejected),
        "cheap": world.task(cheap),
        "touched": world.task(touched),
        "unpaid": world.task(unpaid),
        "paid": world.task(paid),
        "withdrawn": old,
        "quality": world.task(paid, "quality_check"),
        "plan": paid,
        "record": record,
        "email": world.sql("SELECT min(email_id) FROM prepaid.emails"),
    }


def attempt(connection: Connection, control: Control, rows: dict[str, object]) -> None:
    if control.who is not None:
        connection.exec_driver_sql(f'SET LOCAL ROLE "{rows[control.who]}"')
    connection.exec_driver_sql(control.attempt.format(**rows))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: f"{c.name}: {c.attempt[:60]}")
def test_it_is_this_control_that_stops_it(
    module_world: World, rows: dict[str, object], control: Control
) -> None:
    with module_world.engine.connect() as connection:
        connection.exec_driver_sql(REWRITE, execution_options={"no_parameters": True})
        if control.given:
            connection.exec_driver_sql(control.given.format(**rows))
        with pytest.raises(DBAPIError), connection.begin_nested():
            attempt(connection, control, rows)
        connection.exec_driver_sql("RESET ROLE")
        connection.exec_driver_sql(control.take_away.format(**rows))
        attempt(connection, control, rows)
        connection.rollback()


def test_no_control_was_forgotten(module_world: World) -> None:
    with module_world.engine.connect() as connection:
        connection.exec_driver_sql("SET search_path = prepaid")
        named = {"tables": list(TABLES)}
        there = set(connection.execute(text(CATALOGUE), named).scalars())
        always = connection.execute(
            text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A'")
        ).scalars()
        there |= {f"fires in replica mode too: {name}" for name in always}
        connection.rollback()
    assert len(there) > 50
    assert there - {control.name for control in CONTROLS} == set()


@pytest.mark.parametrize("locked", [True, False])
def test_the_row_lock(limited: World, person: Callable[[World, str], str], locked: bool) -> None:
    """Two approve the same payment, the second while the first has not committed yet: with the lock
    they are two; without it the one does not see the other.
    """
    limited.due_renewal()
    (plan,) = limited.open()
    limited.pay(plan)
    task = limited.task(plan)
    ann, bob = person(limited, "finance"), person(limited, "finance")
    if not locked:
        with limited.engine.begin() as connection:
            connection.exec_driver_sql(REWRITE, execution_options={"no_parameters": True})
            connection.exec_driver_sql(
                "SELECT pg_temp.rewrite("
                "'prepaid.decide_tasks', 'ORDER BY k.task_id FOR UPDATE', '')"
            )
    second = Thread(target=decisions.decide, args=(limited.engine, bob, [task], "approve", None))
    with limited.engine.begin() as connection:
        connection.exec_driver_sql(f'SET LOCAL ROLE "{ann}"')
        decide = text("SELECT prepaid.decide_tasks(ARRAY[CAST(:t AS bigint)], 'approved')")
        connection.execute(decide, {"t": task})
        second.start()
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        )
        for _ in range(500):
            if limited.sql(waits):
                break
            sleep(0.01)
        else:
            pytest.fail("nobody waits")
    second.join()
    state = limited.rows("SELECT status, first_approved_by, decided_by FROM prepaid.tasks")
    assert (state == [("Done", ann, bob)]) is locked, state
    assert limited.sql("SELECT count(*) FROM prepaid.sign_offs") == 2
