"""Freeze a release: from here on its migrations are never edited, and upgrades are tested from it.

``python scripts/freeze_release.py 0.1.0`` writes

- of the first release only: sql/migrations/0.1.0.sql, all files of sql/schema in their order;
- sql/migrations/SHA256SUMS, the digests of all migrations, which a test compares;
- tests/database/files/0.1.0.dump.xz and its manifest, a database of the release with data in it.

It may run again until the release is tagged. Commit what it writes, and tag that commit.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "sql" / "migrations"
SUMS = MIGRATIONS / "SHA256SUMS"
FIRST = "0.1.0"


def whole_schema() -> str:
    """All files of sql/schema, in their order."""
    files = sorted((ROOT / "sql/schema").glob("*.sql"))
    parts = [f"-- {file.name}\n\n{file.read_text(encoding='utf-8').strip()}\n" for file in files]
    head = f"-- Release {FIRST}: sql/schema as it was then. Frozen: a change is a new migration.\n"
    return "\n".join([head, *parts])


def sums() -> str:
    """The digest of each migration, as sha256sum writes and checks them."""
    files = sorted(MIGRATIONS.glob("*.sql"))
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)


def freeze(release: str) -> None:
    """Write the files of the release; its database is made by the command beside this Python."""
    tag = ["git", "rev-parse", "--quiet", "--verify", f"refs/tags/v{release}"]
    if subprocess.run(tag, cwd=ROOT, capture_output=True, check=False).returncode == 0:
        raise SystemExit(f"v{release} is tagged: it stays as it is. A change is a new migration.")
    if release == FIRST:
        (MIGRATIONS / f"{FIRST}.sql").write_text(whole_schema(), encoding="utf-8")
    SUMS.write_text(sums(), encoding="utf-8")
    command = Path(sys.executable).parent / "prepaid"
    subprocess.run(
        [sys.executable, "-m", "tests.database.make_release", command, release],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    print(SUMS.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    freeze(sys.argv[1])
