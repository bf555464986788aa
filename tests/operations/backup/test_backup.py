"""prepaid backup: a file and its manifest, a drill that finds what is missing, a restore."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.database import adoption, connections, migrations
from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.backup import dumping, restoring, tools
from prepaid_pipeline.operations.backup.manifest import Manifest, beside
from prepaid_pipeline.settings.load import Settings
from tests.cli.conftest import Prepaid, prepaid, typed
from tests.conftest import fresh_database
from tests.database import releases
from tests.database.make_release import LAST_DAY
from tests.world import TODAY, World

__all__ = ["prepaid", "typed"]


@pytest.fixture
def business(world: World) -> World:
    world.tax_rate("0.0725")
    world.due_renewal()
    world.pay_and_approve(*world.open())
    world.settle()
    return world


@pytest.fixture
def file(business: World, database_url: URL, tmp_path: Path) -> Path:
    made = tmp_path / "prepaid.dump"
    dumping.create(business.engine, database_url, made)
    return made


def drill(file: Path, settings: Settings, here: URL) -> restoring.Drill:
    """On the server of the tests: a new one takes seconds to start."""
    return restoring.drill(file, settings, here=here, as_of=TODAY)


def test_the_drill_looks_as_of_the_day_it_is_given(
    file: Path, business: World, prepaid: Prepaid
) -> None:
    """As prepaid check: nothing on the day of the work, what was missed on a later one."""
    on_the_day = prepaid("backup", "drill", file, "--here", "--as-of", "2026-11-02", "--json")
    assert (on_the_day.code, on_the_day.json()["findings"]) == (0, [])
    late = prepaid("backup", "drill", file, "--here", "--as-of", "2026-12-10", "--json")
    of_original = prepaid("check", "--as-of", "2026-12-10", "--json").json()
    found = [finding for check in of_original for finding in check["findings"]]
    assert found == ["subscription S3: its term ended on 2026-12-02 and nothing followed"]
    assert (late.code, late.json()["findings"]) == (1, found)
    assert "'never' is not a date" in prepaid("backup", "drill", file, "--as-of", "never").err


def scratch_databases(world: World) -> int:
    """That a drill has left; one that is in use is another process's."""
    return world.sql(
        "SELECT count(*) FROM pg_database d WHERE datname LIKE 'prepaid_drill_%'"
        " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)"
    )


def test_a_backup_and_its_drill(business: World, prepaid: Prepaid, tmp_path: Path) -> None:
    file = tmp_path / "prepaid.dump"
    made = prepaid("backup", "create", file)
    assert made.code == 0
    assert "rows in" in made.out
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "prepaid.dump",
        "prepaid.dump.manifest.json",
    ]
    manifest = json.loads(beside(file).read_text())
    assert manifest["tables"]["prepaid.service_plans"] == 2
    assert (
        "invoices Paid USD: 1 over 10.00 net, 0.73 tax, 10.73 in all, 10.73 to pay"
        in (manifest["totals"])
    )
    done = prepaid("backup", "drill", file, "--here", "--as-of", "2026-11-02", "--json")
    assert (done.code, done.json()["findings"]) == (0, [])
    assert list(done.json()["seconds"]) == [
        "file",
        "empty database",
        "restore",
        "rows and totals",
        "audit log",
        "invariants",
        "clean-up",
    ]
    assert scratch_databases(business) == 0


def test_a_backup_is_never_overwritten(file: Path, business: World, database_url: URL) -> None:
    content = file.read_bytes()
    with pytest.raises(tools.BackupFailed, match="never overwritten"):
        dumping.create(business.engine, database_url, file)
    assert file.read_bytes() == content
    with pytest.raises(tools.BackupFailed, match="not a directory"):
        dumping.create(business.engine, database_url, file.parent / "nowhere" / "x")


def test_a_backup_that_fails_leaves_nothing(
    business: World, database_url: URL, tmp_path: Path
) -> None:
    with pytest.raises(tools.BackupFailed, match=r"pg_dump failed: .*no_such"):
        dumping.create(business.engine, database_url.set(database="no_such"), tmp_path / "x.dump")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_damaged_file(file: Path, settings: Settings, database_url: URL) -> None:
    content = file.read_bytes()
    for damaged in (content[:-1], content[:100], b"x" + content[1:]):
        file.write_bytes(damaged)
        with pytest.raises(tools.BackupFailed, match="truncated, damaged or changed"):
            drill(file, settings, database_url)
    file.unlink()
    with pytest.raises(tools.BackupFailed, match="is not there"):
        drill(file, settings, database_url)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_manifest_that_is_none(
    file: Path, settings: Settings, database_url: URL, content: str
) -> None:
    beside(file).write_text(content)
    with pytest.raises(PrepaidError, match=r"not the manifest|newer version"):
        drill(file, settings, database_url)
    beside(file).unlink()
    with pytest.raises(tools.BackupFailed, match="without it nobody can say"):
        drill(file, settings, database_url)


def test_the_drill_finds_what_differs(
    file: Path, business: World, settings: Settings, database_url: URL
) -> None:
    """A manifest that says something else than the file has; and an anchor of what came later."""
    said = json.loads(beside(file).read_text())
    said["tables"]["prepaid.invoices"] += 1
    said["totals"][0] = said["totals"][0].replace("1", "2")
    said["seal_hash"] = "00" * 32
    beside(file).write_text(json.dumps(said))
    found = drill(file, settings, database_url).findings
    assert "prepaid.invoices has 1 rows, the backup was made from 2" in found
    assert sum("says:" in line for line in found) == 2
    assert any("the backup's manifest records seal" in line for line in found)
    assert scratch_databases(business) == 0


def test_a_log_that_was_changed_before_the_backup(
    business: World, settings: Settings, database_url: URL, tmp_path: Path
) -> None:
    with business.engine.begin() as connection:
        connection.execute(text("ALTER TABLE prepaid.audit_log DISABLE TRIGGER ALL"))
        connection.execute(text("UPDATE prepaid.audit_log SET actor = 'me' WHERE audit_id = 1"))
    file = tmp_path / "prepaid.dump"
    dumping.create(business.engine, database_url, file)
    (found,) = drill(file, settings, database_url).findings
    assert found.startswith("entry 1 was changed since seal 1")


def test_anchors_of_before_hold_and_later_ones_are_not_asked(
    file: Path, business: World, settings: Settings, database_url: URL
) -> None:
    anchors.anchor(business.engine, settings, TODAY)
    world = business
    world.due_renewal()
    world.open()
    seals.seal(world.engine)
    anchors.anchor(world.engine, settings, TODAY)
    assert drill(file, settings, database_url).findings == []


def test_restoring_for_real(
    file: Path, business: World, cluster: URL, prepaid: Prepaid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into an empty database; one that has tables is refused, and stays as it is."""
    assert "restored into an empty one" in prepaid("backup", "restore", file).err
    with fresh_database(cluster) as url:
        engine = connections.engine_for(url)
        with engine.begin() as connection:
            for schema in ("prepaid", "revenue"):
                connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
            connection.execute(text("DROP EXTENSION btree_gist"))
        monkeypatch.setenv("PREPAID_DATABASE_URL", url.render_as_string(hide_password=False))
        done = prepaid("backup", "restore", file, "--as-of", "2026-11-02")
        assert (done.code, done.err) == (0, "")
        assert World(engine).rows("SELECT status FROM prepaid.invoices") == [("Paid",)]
        engine.dispose()


def test_the_programs_must_be_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    old.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(old))
    assert tools.find("pg_dump", 9) == old
    assert tools.find("pg_dump", 15) != old  # the embedded server's
    with pytest.raises(tools.BackupFailed, match="PostgreSQL 99 or newer"):
        tools.find("pg_dump", 99)


def test_the_manifest_reads_what_it_wrote(file: Path) -> None:
    manifest = Manifest.read(beside(file))
    assert manifest.dump_bytes == file.stat().st_size
    (anchor,) = manifest.anchors()
    assert len(anchor.seal_hash) == 64


AT_0006 = ("--as-of", LAST_DAY.isoformat())


def test_a_backup_of_before_the_first_release(
    cluster: URL, prepaid: Prepaid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made at 0006: drilled, then restored for real; both take it over as release 0.1.0."""
    file = releases.backup(adoption.LAST, tmp_path)
    assert Manifest.read(beside(file)).migration == "0006"
    done = prepaid("backup", "drill", file, "--here", *AT_0006, "--json")
    assert (done.code, done.json()["findings"]) == (0, [])
    assert f"migration from 0006 to {migrations.newest()}" in done.json()["seconds"]
    with releases.empty(cluster) as engine:
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        monkeypatch.setenv("PREPAID_DATABASE_URL", url)
        done = prepaid("backup", "restore", file, *AT_0006)
        assert (done.code, done.err) == (0, "")
        migrations.require_current(engine)
        assert prepaid("check", *AT_0006).code == 0


@pytest.mark.parametrize(
    ("migration", "advice"),
    [
        ("0005", "Bring it to 0006 with the last program before that release"),
        ("9.9.9", "Install the newer version of prepaid-pipeline"),
    ],
)
def test_a_backup_from_which_no_way_leads_here(
    cluster: URL, tmp_path: Path, migration: str, advice: str
) -> None:
    """It is refused before anything is restored."""
    file = releases.backup(adoption.LAST, tmp_path)
    manifest = replace(restoring.whole(file), migration=migration)
    with releases.empty(cluster) as engine:
        with pytest.raises(tools.BackupFailed, match=f"made at migration {migration}: .*{advice}"):
            restoring.restore(engine, engine.url, file, manifest)
        assert World(engine).sql("SELECT to_regnamespace('prepaid')") is None
