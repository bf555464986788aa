"""What must be true of a backup: written next to it, and compared when it is restored."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, table

from prepaid_pipeline.audit import seals
from prepaid_pipeline.audit.seals import Anchor
from prepaid_pipeline.database import migrations, queries
from prepaid_pipeline.operations.backup.tools import BackupFailed

_SQL = "operations/backup/manifest"
_FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """``dump_sha256`` is the file's. ``tables``: rows by name. ``totals``: sentences. ``roles``:
    ``{name, inherits, teams}`` of each. ``seal_number`` and ``seal_hash`` are of the newest seal; 0
    and empty in an installation without audit entries.
    """

    made_at: str
    migration: str
    server_version: int
    dump_sha256: str
    dump_bytes: int
    seal_number: int
    seal_hash: str
    tables: dict[str, int]
    totals: list[str]
    roles: list[dict[str, Any]]

    @classmethod
    def of(cls, connection: Connection, made_at: datetime, dump: Path) -> "Manifest":
        """That of the database as ``connection`` sees it, and of the file ``dump`` made of it."""
        newest = seals.newest_seen(connection)
        return cls(
            made_at.isoformat(),
            migrations.newest(),
            major(connection),
            digest(dump),
            dump.stat().st_size,
            newest.seal_number if newest else 0,
            newest.seal_hash if newest else "",
            counts(connection),
            totals(connection),
            [dict(row) for row in _rows(connection, "roles")],
        )

    def anchors(self) -> list[Anchor]:
        """The newest seal at the time of the backup; none if there was none."""
        said = Anchor("the backup's manifest", self.seal_number, self.seal_hash)
        return [said] if self.seal_number else []

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"format": _FORMAT} | asdict(self), indent=2) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Raises BackupFailed for a file that is not a manifest."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise BackupFailed(f"{path} was written by a newer version of prepaid-pipeline.")
            return cls(**content)
        except FileNotFoundError:
            raise BackupFailed(
                f"{path} is not there: 'prepaid backup create' writes it next to the dump,"
                " and without it nobody can say whether a restore is complete."
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise BackupFailed(f"{path} is not the manifest of a backup: {error}") from error


def beside(dump: Path) -> Path:
    """The path of the manifest that belongs to a dump."""
    return dump.with_name(f"{dump.name}.manifest.json")


def differences(connection: Connection, manifest: Manifest) -> Iterator[str]:
    """How a restored database differs from the manifest, one sentence each."""
    found = counts(connection)
    for name in sorted(found.keys() | manifest.tables.keys()):
        was, has = manifest.tables.get(name, 0), found.get(name, 0)
        if was != has:
            yield f"{name} has {has} rows, the backup was made from {was}"
    there = totals(connection)
    for line in manifest.totals:
        if line not in there:
            yield f"the backup says: {line}"
    for line in there:
        if line not in manifest.totals:
            yield f"the restored database says: {line}"


def counts(connection: Connection) -> dict[str, int]:
    """Rows of every table, by its name."""
    found = {}
    for row in _rows(connection, "tables"):
        counted = select(func.count()).select_from(table(row["name"], schema=row["schema"]))
        found[f"{row['schema']}.{row['name']}"] = connection.execute(counted).scalar_one()
    return found


def totals(connection: Connection) -> list[str]:
    """Counts and amounts by status, one sentence each."""
    return [row["total"] for row in _rows(connection, "totals")]


def major(connection: Connection) -> int:
    """The server's major version, such as 16; 0 if unknown."""
    return int((connection.dialect.server_version_info or (0,))[0])


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def _rows(connection: Connection, part: str) -> list[Any]:
    return list(queries.statement(_SQL, part).execute(connection, {}).mappings())
