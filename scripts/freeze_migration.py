"""Write sql/migrations/0001_foundation.sql anew from sql/schema.

Only until the first release: from then on a migration that has been delivered stays as it is, a
change of the schema is a new file here and in prepaid_pipeline/revisions/versions.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "sql" / "migrations" / "0001_foundation.sql"
HEADER = "-- The first schema: sql/schema as it was when this was frozen.\n"


def frozen() -> str:
    """The text of the migration: all files of sql/schema in their order."""
    files = sorted((ROOT / "sql" / "schema").glob("*.sql"))
    return HEADER + "".join(f"\n-- {f.name}\n{f.read_text(encoding='utf-8')}" for f in files)


def freeze() -> bool:
    """Write the migration; True if it changed. A reader never sees half of it."""
    text = frozen()
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return False
    TARGET.parent.mkdir(exist_ok=True)
    half = TARGET.with_suffix(f".{os.getpid()}.tmp")
    half.write_text(text, encoding="utf-8")
    half.replace(TARGET)
    return True


if __name__ == "__main__":
    print("frozen" if freeze() else "nothing to do")
