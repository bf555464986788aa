"""Fault 9: a migration is killed at each of its statements; a backup is restored into a new server.

After a kill the database is what it was, whole, and the next migration finishes. The restored
database is the same to pg_dump, and its audit log is still what was sealed.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, make_url, text

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import adoption, connections, embedded, migrations, queries
from prepaid_pipeline.errors import DatabaseNotReady
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.operations.backup.dumping import create
from prepaid_pipeline.operations.backup.restoring import examine, restore, whole
from prepaid_pipeline.settings.load import Settings
from scripts.draft_migration import _STATEMENT
from tests.database.releases import RELEASES, at_release, empty, everything, plain
from tests.faults.recorder import Recorder
from tests.world import TODAY, World, context

pytestmark = pytest.mark.fault

SEED = 9
# Of each migration in 'make test-faults', beside its first and last statement; test-long has all.
SAMPLED = 1
_KILL = "\nSELECT pg_terminate_backend(pg_backend_pid());\n"
# Everything that a migration makes or changes, and the rows that it may have moved.
_FINGERPRINT = """
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
    SELECT c.oid::regclass || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || ' ' || a.attnotnull FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = ANY (:ours) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = ANY (:ours)
    UNION ALL SELECT pg_get_viewdef(c.oid) FROM pg_class c
    WHERE c.relnamespace = ANY (:ours) AND c.relkind = 'v'
    UNION ALL SELECT pg_get_constraintdef(k.oid) || k.conrelid::regclass FROM pg_constraint k
    WHERE k.connamespace = ANY (:ours)
    UNION ALL SELECT pg_get_indexdef(c.oid) FROM pg_class c
    WHERE c.relnamespace = ANY (:ours) AND c.relkind = 'i'
    UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = ANY (:ours)
    UNION ALL SELECT c.oid::regclass || coalesce(c.relacl::text, '') FROM pg_class c
    WHERE c.relnamespace = ANY (:ours)
) everything (line)
"""


def fingerprint(engine: Engine) -> str:
    with engine.connect() as connection:
        ours = connection.execute(
            text("SELECT array_agg(oid) FROM pg_namespace WHERE nspname IN ('prepaid', 'revenue')")
        ).scalar()
        found = connection.execute(text(_FINGERPRINT), {"ours": ours or []}).scalar()
    return str(found)


def kinds() -> Iterator[tuple[str, str]]:
    """Each file that a migration runs, after what it finds: nothing, or a release's database."""
    first, *later = migrations.known()
    yield "nothing", first
    yield adoption.LAST, f"from_{adoption.LAST}"
    # Made beside the other and rolled back, to compare the two.
    yield adoption.LAST, first
    for number in later:
        before = migrations.known()[: migrations.known().index(number)]
        yield [release for release in RELEASES if release in before][-1], number


@contextmanager
def found_by(cluster: URL, start: str) -> Iterator[Engine]:
    with empty(cluster) if start == "nothing" else at_release(cluster, start) as engine:
        yield engine


def statements(file: str) -> list[str]:
    """The statements of a migration, which together are the whole file; none of a bare comment."""
    sql = queries.read(f"migrations/{file}")
    found = _STATEMENT.findall(sql)
    assert "".join(found).strip() == (sql.strip() if found else "")
    return found


*_EARLIER, _NEWEST = kinds()


@pytest.fixture(
    scope="module", params=[*_EARLIER, pytest.param(_NEWEST, marks=pytest.mark.smoke)], ids=" ".join
)
def before(cluster: URL, request: pytest.FixtureRequest) -> Iterator[tuple[str, Engine]]:
    """A migration's file, and a database that it has not seen."""
    start, file = request.param
    with found_by(cluster, start) as engine:
        yield file, engine


def kill_at(engine: Engine, file: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrate, and kill the backend after ``place`` statements of a file."""
    parts = statements(file)
    killing = "".join(parts[:place]) + _KILL + "".join(parts[place:])
    read = queries.read
    with monkeypatch.context() as patched:
        patched.setattr(
            queries,
            "read",
            lambda name: killing if name == f"migrations/{file}" else read(name),
        )
        with pytest.raises(DatabaseNotReady, match=r"cannot be reached"):
            migrations.upgrade(engine)


def killed(
    before: tuple[str, Engine], places: list[int], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The places after which the database was not the old one, whole."""
    file, engine = before
    was, wrong = fingerprint(engine), []
    with engine.connect() as connection:
        version = migrations.applied(connection)
    for place in places:
        kill_at(engine, file, place, monkeypatch)
        with engine.connect() as connection:
            if migrations.applied(connection) != version or fingerprint(engine) != was:
                wrong.append(place)
    return wrong


def test_killed_at_a_statement(
    before: tuple[str, Engine],
    monkeypatch: pytest.MonkeyPatch,
    record: Recorder,
    request: pytest.FixtureRequest,
) -> None:
    """Before the first, after the last and at some between."""
    file, engine = before
    last = len(statements(file))
    between = range(1, last)
    sample = random.Random(f"{SEED} {file}").sample(between, min(SAMPLED, len(between)))
    places = sorted({0, *sample, last})
    wrong = killed(before, places, monkeypatch)
    start = request.node.callspec.id.partition(" ")[0]
    record(
        fault=9,
        what=f"migration from {start}, {file} killed at some of its {last} statements",
        points=len(places),
        violations=len(wrong),
        seed=SEED,
    )
    assert wrong == []
    finishes(engine)


@pytest.mark.long
def test_killed_at_every_statement(
    cluster: URL, monkeypatch: pytest.MonkeyPatch, record: Recorder
) -> None:
    points, wrong = 0, dict[tuple[str, str], list[int]]()
    for start, file in kinds():
        with found_by(cluster, start) as engine:
            places = list(range(len(statements(file)) + 1))
            points += len(places)
            wrong[start, file] = killed((file, engine), places, monkeypatch)
            finishes(engine)
    record(
        fault=9,
        what="migrations killed at every statement",
        points=points,
        violations=sum(map(len, wrong.values())),
    )
    assert {kind: found for kind, found in wrong.items() if found} == {}


def finishes(engine: Engine) -> None:
    """The next migration goes through, and the business goes on."""
    migrations.upgrade(engine)
    migrations.require_current(engine)
    world = World(engine)
    world.tax_rate("0.0725", valid_from="2020-02-01")
    before = set(world.plans())
    world.due_renewal()
    (plan,) = set(world.open()) - before
    assert world.status(plan) == "Pending"
    assert seals.verify(engine) == []


def test_a_backup_restored_into_a_new_server(
    world: World, database_url: URL, settings: Settings, tmp_path: Path, record: Recorder
) -> None:
    world.tax_rate("0.0725")
    for _ in range(3):
        world.due_renewal()
    settled, *_ = world.open()
    world.pay_and_approve(settled)
    world.settle()
    file = tmp_path / "prepaid.dump"
    create(world.engine, database_url, file)
    other = tmp_path / "other"
    _open_to_the_server(tmp_path)
    url = make_url(embedded.start(other))
    restored = connections.engine_for(url)
    try:
        manifest = whole(file)
        restore(restored, url, file, manifest)
        same = plain(everything(url)) == plain(everything(database_url))
        parts = examine(restored, settings, manifest, TODAY)
        wrong = [text for _, found in parts for text in found]
        record(
            fault=9,
            what="a backup restored into a new server: pg_dump, chain, totals, checks",
            points=1,
            violations=len(wrong) + (not same),
        )
        assert same
        assert wrong == []
        # And it goes on there.
        there = World(restored)
        there.officer()
        rest = [plan for plan in there.plans() if there.status(plan) == "Pending"]
        there.pay_and_approve(*rest)
        there.settle()
        assert {there.status(plan) for plan in there.plans()} == {"Active"}
        found = {c.name: c.findings for c in invariants.run(restored, context()) if c.findings}
        assert found == {}
        assert seals.verify(restored, manifest.anchors()) == []
    finally:
        restored.dispose()
        embedded.stop(other)


def _open_to_the_server(path: Path) -> None:
    """As root, the embedded server runs as another user, who must be able to reach its data."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
