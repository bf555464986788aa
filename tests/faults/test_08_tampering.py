"""Fault 8: the audit log is changed by a superuser with all triggers off. Everything is found, and
named where there is something to name; what leaves a whole chain behind is found by the anchor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, text

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.database import connections
from tests.audit.writers import Writer, write
from tests.conftest import fresh_database
from tests.faults.recorder import Recorder
from tests.world import World

pytestmark = pytest.mark.fault

EXAMPLES = 30
_ENTRY_HASH = """sha256(record_send(ROW(
    a.audit_id, a.at, convert_to(a.event, 'UTF8'), a.service_plan_id, convert_to(a.entity, 'UTF8'),
    a.entity_id, convert_to(a.before, 'UTF8'), convert_to(a.after, 'UTF8'),
    convert_to(a.detail, 'UTF8'), convert_to(a.actor, 'UTF8'), convert_to(a.run_id, 'UTF8'),
    a.as_of)))"""
# What an attacker does who knows how seals are made: each again, under its old time and number.
_FORGE = f"""
DO $$
DECLARE
    s prepaid.audit_seals;
    previous bytea := decode(repeat('00', 32), 'hex');
BEGIN
    FOR s IN SELECT * FROM prepaid.audit_seals ORDER BY seal_number LOOP
        SELECT count(*), range_agg(int8range(a.audit_id, a.audit_id, '[]')),
               sha256(string_agg({_ENTRY_HASH}, '' ORDER BY a.audit_id)),
               string_agg(substr({_ENTRY_HASH}, 1, 8), '' ORDER BY a.audit_id)
        INTO s.entries, s.ids, s.entries_hash, s.digests
        FROM prepaid.audit_log a WHERE a.audit_id <@ s.ids;
        s.previous_hash := previous;
        s.seal_hash := sha256(record_send(ROW(s.seal_number, s.sealed_at, s.sealed_through,
            s.entries, convert_to(s.ids::text, 'UTF8'), convert_to(s.awaited::text, 'UTF8'),
            s.entries_hash, s.digests, s.previous_hash)));
        previous := s.seal_hash;
        UPDATE prepaid.audit_seals SET entries = s.entries, ids = s.ids, digests = s.digests,
            entries_hash = s.entries_hash, previous_hash = s.previous_hash, seal_hash = s.seal_hash
        WHERE seal_number = s.seal_number;
    END LOOP;
END $$
"""  # noqa: S608
# The hash of the seals from :seal on, made anew after one of them was edited.
_RESEAL = """
UPDATE prepaid.audit_seals s SET seal_hash = sha256(record_send(ROW(s.seal_number, s.sealed_at,
    s.sealed_through, s.entries, convert_to(s.ids::text, 'UTF8'),
    convert_to(s.awaited::text, 'UTF8'), s.entries_hash, s.digests, s.previous_hash)))
WHERE s.seal_number = :seal
"""
COLUMNS = {
    "at": "at + interval '1 microsecond'",
    "as_of": "coalesce(as_of, '2026-01-01') + 1",
    **{name: f"coalesce({name}, 0) + 1" for name in ("service_plan_id", "entity_id")},
    **{
        name: f"coalesce({name} || '.', '')"
        for name in ("event", "entity", "before", "after", "detail", "actor", "run_id")
    },
}
SEAL_COLUMNS = {
    "sealed_at": "sealed_at - interval '1 second'",
    "sealed_through": "sealed_through + 1",
    "ids": "ids - int8multirange(int8range(lower(ids), lower(ids), '[]'))",
    "awaited": "awaited + int8multirange(int8range(1, 2))",
    "entries_hash": "sha256('x')",
    "digests": "digests || ''::bytea || substr(digests, 1, 0)",
    "previous_hash": "sha256('x')",
    "seal_hash": "sha256('x')",
}


@dataclass
class Sealed:
    """A log of several seals: its ids, the ids that were given up, and an anchor of its end."""

    world: World
    ids: list[int]
    unused: list[int]
    seals: int
    anchor: list[seals.Anchor]


@dataclass
class Tried:
    """How often a test tampered, and how often that was not found or not named."""

    what: str = ""
    points: int = 0
    missed: int = 0

    def note(self, right: bool, what: str, found: list[seals.Finding]) -> None:
        self.what, self.points, self.missed = what, self.points + 1, self.missed + (not right)
        assert right, found


@pytest.fixture
def tried(record: Recorder) -> Iterator[Tried]:
    tried = Tried()
    yield tried
    record(fault=8, what=tried.what, points=tried.points, violations=tried.missed)


@pytest.fixture(scope="module")
def sealed(cluster: URL) -> Iterator[Sealed]:
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        world = World(engine)
        world.tax_rate("0.0725")
        for _ in range(4):
            world.due_renewal()
        plans = world.open()
        world.pay_and_approve(*plans)
        # One that is rolled back, and one that commits after entries with higher ids were sealed.
        for commit in (False, True):
            writer = Writer(engine)
            writer.write(2, "slow")
            write(engine, 2, "quick")
            seals.seal(engine)
            writer.end(commit=commit)
        world.settle()
        seals.seal(engine)
        ids = [row[0] for row in world.rows("SELECT audit_id FROM prepaid.audit_log ORDER BY 1")]
        newest = seals.newest(engine)
        assert newest is not None
        assert newest.seal_number >= 4
        found = Sealed(
            world,
            ids,
            sorted(set(range(1, ids[-1])) - set(ids)),
            newest.seal_number,
            anchors.read("the anchor", anchors.text(newest)),
        )
        assert found.unused
        yield found
        # Nothing is reported that is not so.
        assert seals.verify(engine, found.anchor) == []
        engine.dispose()


@contextmanager
def tampering(sealed: Sealed) -> Iterator[Connection]:
    """A superuser's transaction in which no trigger fires; rolled back in the end."""
    with sealed.world.engine.connect() as connection:
        for table in ("audit_log", "audit_seals"):
            connection.execute(text(f"ALTER TABLE prepaid.{table} DISABLE TRIGGER ALL"))
        connection.execute(
            text("ALTER TABLE prepaid.audit_log ALTER audit_id SET GENERATED BY DEFAULT")
        )
        yield connection
        connection.rollback()


def expect(
    tried: Tried, connection: Connection, kind: str, *, what: set[str], ids: set[int] | None = None
) -> list[seals.Finding]:
    """The changed log is found without any anchor, as ``what``, and ``ids`` are named."""
    found = seals.examine(connection)
    named = {number for finding in found for number in finding.ids}
    kinds = {finding.what for finding in found}
    tried.note(bool(what & kinds) and (ids is None or named == ids), kind, found)
    return found


def expect_by_anchor(
    sealed: Sealed, tried: Tried, connection: Connection, kind: str, what: str
) -> None:
    """The attacker left a whole chain behind, and only the anchor knows better."""
    assert seals.examine(connection) == [], "the forged chain should be whole"
    found = seals.examine(connection, sealed.anchor)
    tried.note({finding.what for finding in found} == {what}, kind, found)


several = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@several
@given(data=st.data())
def test_edited(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    ids = data.draw(st.sets(st.sampled_from(sealed.ids), min_size=1, max_size=4))
    column = data.draw(st.sampled_from(sorted(COLUMNS)))
    with tampering(sealed) as connection:
        connection.execute(
            text(
                f"UPDATE prepaid.audit_log SET {column} = {COLUMNS[column]}"  # noqa: S608
                " WHERE audit_id = ANY (:ids)"
            ),
            {"ids": sorted(ids)},
        )
        expect(
            tried, connection, "one to four entries edited, any column", what={"changed"}, ids=ids
        )


@several
@given(data=st.data())
def test_deleted_in_the_middle(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    ids = data.draw(st.sets(st.sampled_from(sealed.ids), min_size=1, max_size=len(sealed.ids)))
    with tampering(sealed) as connection:
        connection.execute(
            text("DELETE FROM prepaid.audit_log WHERE audit_id = ANY (:ids)"), {"ids": sorted(ids)}
        )
        expect(tried, connection, "entries deleted", what={"deleted"}, ids=ids)


@several
@given(data=st.data())
def test_swapped(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """Two entries exchange their ids, or one takes an id that was never used."""
    first, second = data.draw(
        st.lists(st.sampled_from(sealed.ids), min_size=2, max_size=2, unique=True)
    )
    with tampering(sealed) as connection:
        for was, becomes in ((first, -1), (second, first), (-1, second)):
            connection.execute(
                text("UPDATE prepaid.audit_log SET audit_id = :n WHERE audit_id = :o"),
                {"n": becomes, "o": was},
            )
        expect(tried, connection, "two entries swapped", what={"changed"}, ids={first, second})


@several
@given(data=st.data())
def test_times_changed(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    ids = data.draw(st.sets(st.sampled_from(sealed.ids), min_size=1, max_size=8))
    seconds = data.draw(st.integers(-(10**7), 10**7).filter(bool))
    with tampering(sealed) as connection:
        connection.execute(
            text(
                "UPDATE prepaid.audit_log SET at = at + make_interval(secs => :seconds)"
                " WHERE audit_id = ANY (:ids)"
            ),
            {"ids": sorted(ids), "seconds": seconds},
        )
        expect(tried, connection, "times changed", what={"changed"}, ids=ids)


@pytest.mark.smoke
@several
@given(data=st.data())
def test_inserted(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """Under a number between the others, before them, or one that was never given out."""
    number = data.draw(st.sampled_from([*sealed.unused, 0, -5, 10**6]))
    with tampering(sealed) as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.audit_log (audit_id, event, entity, actor) OVERRIDING SYSTEM"
                " VALUE VALUES (:id, 'service_plan_active', 'service_plan', 'pipeline')"
            ),
            {"id": number},
        )
        expect(tried, connection, "an entry put in", what={"inserted"}, ids={number})


@several
@given(data=st.data())
def test_a_seal_is_edited(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """Also when the attacker gives the edited seal a hash that fits it."""
    seal = data.draw(st.integers(1, sealed.seals - 1))
    column = data.draw(st.sampled_from(sorted(set(SEAL_COLUMNS) - {"digests"})))
    with tampering(sealed) as connection:
        asked = {"seal": seal}
        connection.execute(
            text(
                f"UPDATE prepaid.audit_seals SET {column} = {SEAL_COLUMNS[column]}"  # noqa: S608
                " WHERE seal_number = :seal"
            ),
            asked,
        )
        found = expect(tried, connection, "a seal edited", what={"seal_changed", "chain_broken"})
        assert seal in {finding.seal_number for finding in found}
        connection.execute(text(_RESEAL), asked)
        if column != "seal_hash":
            expect(tried, connection, "a seal edited", what={"chain_broken"})


@several
@given(data=st.data())
def test_seals_are_removed(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """From the middle, with or without their entries."""
    seal = data.draw(st.integers(1, sealed.seals - 1))
    with tampering(sealed) as connection:
        if data.draw(st.booleans()):
            connection.execute(
                text(
                    "DELETE FROM prepaid.audit_log a USING prepaid.audit_seals s"
                    " WHERE s.seal_number = :seal AND a.audit_id <@ s.ids"
                ),
                {"seal": seal},
            )
        connection.execute(
            text("DELETE FROM prepaid.audit_seals WHERE seal_number = :seal"), {"seal": seal}
        )
        found = expect(
            tried, connection, "a seal removed, with and without its entries", what={"seal_missing"}
        )
        assert seal in {finding.seal_number for finding in found}


@pytest.mark.smoke
@several
@given(data=st.data())
def test_the_tail_is_removed(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """The newest seals with all their entries: what is left is a whole chain, too short."""
    last = data.draw(st.integers(0, sealed.seals - 1))
    with tampering(sealed) as connection:
        connection.execute(
            text(
                "DELETE FROM prepaid.audit_log a USING prepaid.audit_seals s"
                " WHERE s.seal_number > :last AND a.audit_id <@ s.ids"
            ),
            {"last": last},
        )
        connection.execute(
            text("DELETE FROM prepaid.audit_seals WHERE seal_number > :last"), {"last": last}
        )
        assert seals.examine(connection) == []
        found = seals.examine(connection, sealed.anchor)
        right = {finding.what for finding in found} == {"tail_removed"}
        tried.note(right, "tail removed; found by the anchor", found)


@several
@given(data=st.data())
def test_the_head_is_rewritten(sealed: Sealed, tried: Tried, data: st.DataObject) -> None:
    """An entry is edited and every hash after it made anew, as our own sealing would have."""
    number = data.draw(st.sampled_from(sealed.ids))
    column = data.draw(st.sampled_from(sorted(COLUMNS)))
    edit = text(
        f"UPDATE prepaid.audit_log SET {column} = {COLUMNS[column]} WHERE audit_id = :id"  # noqa: S608
    )
    with tampering(sealed) as connection:
        connection.execute(edit, {"id": number})
        connection.execute(text(_FORGE))
        kind = "edited, all hashes made anew; found by the anchor"
        expect_by_anchor(sealed, tried, connection, kind, "rewritten")


@several
@given(data=st.data())
def test_the_tail_is_removed_and_the_head_rewritten(
    sealed: Sealed, tried: Tried, data: st.DataObject
) -> None:
    """... and new entries are sealed until there is a seal of the anchor's number again."""
    last = data.draw(st.integers(1, sealed.seals - 1))
    with tampering(sealed) as connection:
        for statement in (
            "DELETE FROM prepaid.audit_log a USING prepaid.audit_seals s"
            " WHERE s.seal_number > :last AND a.audit_id <@ s.ids",
            "DELETE FROM prepaid.audit_seals WHERE seal_number > :last",
            "DELETE FROM prepaid.audit_awaited WHERE :last > 0",
        ):
            connection.execute(text(statement), {"last": last})
        connection.execute(
            text("UPDATE prepaid.audit_log SET actor = 'somebody_else' WHERE audit_id = :id"),
            {"id": sealed.ids[0]},
        )
        connection.execute(text(_FORGE))
        for _ in range(sealed.seals - last):
            connection.execute(
                text("INSERT INTO prepaid.audit_log (event, entity, actor) VALUES ('x', 'y', 'z')")
            )
            assert connection.execute(text("SELECT prepaid.seal_audit_log()")).scalar() == 1
        kind = "tail removed, head rewritten, new seals made; found by the anchor"
        expect_by_anchor(sealed, tried, connection, kind, "rewritten")
