"""Making a backup: one file of pg_dump's, and its manifest, of one snapshot."""

import os
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL, Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.operations.backup import tools
from prepaid_pipeline.operations.backup.manifest import Manifest, beside, major


def create(engine: Engine, database: URL, file: Path) -> Manifest:
    """Write the whole database to ``file`` (custom format) and its manifest next to it.

    Both or neither: they get their names when they are complete and on disk. Work continues
    meanwhile.
    Raises BackupFailed.
    """
    if not file.parent.is_dir():
        raise tools.BackupFailed(f"{file.parent} is not a directory: create it first.")
    if file.exists():
        raise tools.BackupFailed(f"{file} is there already: a backup is never overwritten.")
    half, half_manifest = (p.with_name(f".{p.name}.half") for p in (file, beside(file)))
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            exported = queries.statement("operations/backup/manifest", "snapshot").execute(
                connection, {}
            )
            program = tools.find("pg_dump", major(connection))
            tools.run(
                program,
                database,
                "--format=custom",
                f"--snapshot={exported.scalar_one()}",
                "--file",
                str(half),
            )
            manifest = Manifest.of(connection, datetime.now(UTC), half)
        manifest.write(half_manifest)
        for path in (half, half_manifest):
            _on_disk(path)
        half_manifest.replace(beside(file))
        half.replace(file)
        _on_disk(file.parent)
    finally:
        half.unlink(missing_ok=True)
        half_manifest.unlink(missing_ok=True)
    return manifest


def _on_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
