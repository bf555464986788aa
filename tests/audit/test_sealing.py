"""Sealing beside transactions that are under way: nothing skipped, nothing twice, nobody waits."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.audit import seals
from tests.audit.writers import Writer, write
from tests.budget import examples
from tests.world import World, context

# Every entry is in exactly one seal.
_COVERED = """
SELECT a.audit_id, count(s.seal_number) FROM prepaid.audit_log a
LEFT JOIN prepaid.audit_seals s ON s.ids @> a.audit_id
GROUP BY a.audit_id HAVING count(s.seal_number) <> 1
"""


def assert_all_sealed(world: World) -> None:
    assert seals.unsealed(world.engine) == 0
    assert world.rows(_COVERED) == []
    assert seals.verify(world.engine) == []


def test_a_batch_gets_one_seal(world: World) -> None:
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    seals.seal(world.engine)
    before = world.sql("SELECT count(*) FROM prepaid.audit_seals")
    plans = world.open()
    assert world.sql("SELECT count(*) FROM prepaid.audit_seals") == before + 1
    world.pay_and_approve(*plans)
    world.settle()
    assert_all_sealed(world)
    # Nothing new, no seal.
    assert seals.seal(world.engine) == 0
    assert world.sql("SELECT count(*) FROM prepaid.audit_seals") == before + 2


def test_an_empty_log(world: World) -> None:
    assert seals.seal(world.engine) == 0
    assert seals.newest(world.engine) is None
    assert seals.verify(world.engine) == []
    assert seals.unsealed(world.engine) == 0


def test_what_commits_later_is_sealed_later(world: World) -> None:
    engine, early = world.engine, Writer(world.engine)
    early.write(2)
    write(engine, 3)
    assert seals.seal(engine) == 3
    assert seals.verify(engine) == []
    assert world.sql("SELECT CAST(awaited AS text) FROM prepaid.audit_seals") == "{[1,3)}"
    # Still open, and others come and go.
    write(engine, 1)
    assert seals.seal(engine) == 1
    early.end()
    assert seals.unsealed(engine) == 2
    assert seals.verify(engine) == []
    assert seals.seal(engine) == 2
    assert_all_sealed(world)


def test_what_was_rolled_back_is_given_up(world: World) -> None:
    engine, early = world.engine, Writer(world.engine)
    early.write(2)
    write(engine)
    seals.seal(engine)
    early.end(commit=False)
    write(engine)
    seals.seal(engine)
    assert_all_sealed(world)
    assert world.rows("SELECT CAST(awaited AS text) FROM prepaid.audit_seals ORDER BY 1") == [
        ("{[1,3)}",),
        ("{}",),
    ]
    # So an entry that turns up there now was put in.
    world.sql(
        "INSERT INTO prepaid.audit_log (audit_id, event, entity, actor)"
        " OVERRIDING SYSTEM VALUE VALUES (2, 'invoice_paid', 'invoice', 'nobody')"
    )
    (found,) = seals.verify(engine)
    assert (found.what, found.ids) == ("inserted", [2])
    assert seals.seal(engine) == 0


def test_a_writer_that_ends_while_a_seal_is_made(world: World) -> None:
    """It commits after the sealer has read the log, and before it knows which ids to await."""
    engine, early = world.engine, Writer(world.engine)
    early.write()
    write(engine)
    with engine.connect() as blocked:
        # What the sealer writes needs this lock, what it reads does not.
        blocked.execute(text("LOCK TABLE prepaid.audit_awaited IN ACCESS EXCLUSIVE MODE"))
        sealing = threading.Thread(target=seals.seal, args=(engine,))
        sealing.start()
        time.sleep(0.3)
        early.end()
        blocked.rollback()
    sealing.join()
    seals.seal(engine)
    assert_all_sealed(world)


def test_the_hashes_depend_on_no_setting(world: World) -> None:
    """Sealed and verified by sessions that write dates, bytes and letters otherwise."""
    world.sql(
        "INSERT INTO prepaid.audit_log (event, entity, before, after, detail, actor, as_of)"
        " VALUES ('x', '', NULL, '', 'Größe', 'Zoë', '2026-11-02')"
    )
    settings = (
        "SET client_encoding TO 'LATIN1'; SET TimeZone TO 'Asia/Tokyo';"
        " SET DateStyle TO 'SQL, DMY'; SET bytea_output TO 'escape';"
        " SET IntervalStyle TO 'iso_8601'"
    )
    with world.engine.connect() as connection:
        connection.exec_driver_sql(settings)
        assert connection.execute(text("SELECT prepaid.seal_audit_log()")).scalar() == 1
        connection.commit()
        connection.invalidate()
    assert seals.verify(world.engine) == []
    # Nothing and an empty text are two things, and texts have their ends.
    for change in ("before = ''", "entity = 'x', event = ''", "after = NULL"):
        with world.engine.connect() as connection:
            connection.execute(text("ALTER TABLE prepaid.audit_log DISABLE TRIGGER ALL"))
            connection.execute(text(f"UPDATE prepaid.audit_log SET {change}"))  # noqa: S608
            assert [finding.what for finding in seals.examine(connection)] == ["changed"]
            connection.rollback()


def test_only_one_seals_and_nobody_waits(world: World) -> None:
    engine = world.engine
    write(engine)
    with engine.connect() as first:
        assert first.execute(text("SELECT prepaid.seal_audit_log()")).scalar() == 1
        started = time.monotonic()
        assert seals.seal(engine) == 0
        write(engine)
        assert time.monotonic() - started < 2
        first.commit()
    assert seals.seal(engine) == 1
    assert_all_sealed(world)


def test_more_than_one_seal_takes(world: World) -> None:
    write(world.engine, seals.ENTRIES_PER_SEAL + 7)
    assert seals.seal(world.engine) == seals.ENTRIES_PER_SEAL + 7
    assert world.rows("SELECT entries FROM prepaid.audit_seals ORDER BY seal_number") == [
        (seals.ENTRIES_PER_SEAL,),
        (7,),
    ]
    assert seals.verify(world.engine) == []


def test_a_snapshot_that_is_older_is_refused(world: World) -> None:
    write(world.engine)
    with (
        pytest.raises(DBAPIError, match="READ COMMITTED"),
        world.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        connection.execute(text("SELECT prepaid.seal_audit_log()"))


def test_seals_are_only_added(world: World) -> None:
    write(world.engine)
    seals.seal(world.engine)
    for statement in (
        "UPDATE prepaid.audit_seals SET entries = 2",
        "DELETE FROM prepaid.audit_seals",
        "TRUNCATE prepaid.audit_seals",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            world.sql(statement)


def test_that_sealing_failed_is_no_fault_of_the_work(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sql("ALTER TABLE prepaid.audit_seals RENAME TO elsewhere")
    write(world.engine)
    seals.seal_after(world.engine)
    assert "could not be sealed" in caplog.text
    world.sql("ALTER TABLE prepaid.elsewhere RENAME TO audit_seals")
    assert seals.seal(world.engine) == 1


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("commit"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("roll back"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("seal"), st.just(0), st.just(0)),
)


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, max_size=25))
def test_any_order_of_four_writers(module_world: World, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is written, committed, rolled back and sealed when: the chain holds at every moment,
    and in the end every committed entry is in exactly one seal."""
    engine, open_ = module_world.engine, dict[int, Writer]()
    for step, who, entries in steps:
        if step == "seal":
            seals.seal(engine)
            assert seals.verify(engine) == []
        elif step == "write":
            if who not in open_:
                open_[who] = Writer(engine)
            open_[who].write(entries)
        elif who in open_:
            open_.pop(who).end(commit=step == "commit")
    for writer in open_.values():
        writer.end()
    seals.seal(engine)
    assert_all_sealed(module_world)


def _repeat(until: float, work: Callable[[], object], faults: list[BaseException]) -> None:
    try:
        while time.monotonic() < until:
            work()
    except BaseException as fault:
        faults.append(fault)


def test_writers_and_sealers_at_once(world: World) -> None:
    engine, faults = world.engine, list[BaseException]()
    until = time.monotonic() + 1.5

    def slow_write() -> None:
        writer = Writer(engine)
        writer.write(5)
        time.sleep(0.01)
        writer.end(commit=time.monotonic_ns() % 3 > 0)

    works = [slow_write] * 3 + [lambda: seals.seal(engine)] * 2
    threads = [threading.Thread(target=_repeat, args=(until, work, faults)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    seals.seal(engine)
    assert_all_sealed(world)
    assert world.sql("SELECT count(*) FROM prepaid.audit_seals") > 10


def test_a_plan_settles_while_the_log_is_held_open(world: World) -> None:
    """A transaction that writes an entry and stays open stops neither the work nor the sealing."""
    held = Writer(world.engine)
    held.write()
    world.tax_rate("0.0725")
    world.due_renewal()
    plans = world.open(context())
    world.pay_and_approve(*plans)
    world.settle()
    assert world.status(plans[0]) == "Active"
    assert seals.unsealed(world.engine) == 0
    held.end()
    seals.seal(world.engine)
    assert_all_sealed(world)
