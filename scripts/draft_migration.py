"""Draft the next migration: what of sql/schema differs from an earlier commit, as SQL to finish.

``python scripts/draft_migration.py v0.1.0 > sql/migrations/0.2.0.1.sql``: a tag or any commit; the
name is the release that will bring the migration, and a number. New tables, functions, views,
indexes, triggers and rights come as they are in sql/schema; what is gone or replaced is dropped
first. A table that has changed cannot be drafted: both its texts are printed, and a person writes
the ALTER TABLE. A test holds sql/schema and all migrations to the same database.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAMED = re.compile(
    r"CREATE (?:UNLOGGED )?(?:UNIQUE )?(TABLE|INDEX|VIEW|FUNCTION|TRIGGER|SCHEMA|EXTENSION)"
    r" (?:IF NOT EXISTS )?([\w.]+)"
)
_STATEMENT = re.compile(r"(?:\$\$.*?\$\$|--[^\n]*|'[^']*'|[^;$'-]|-(?!-)|\$(?!\$))+;", re.S)


def statements(text: str) -> dict[str, str]:
    """Name of each statement -> its text with the comment above it, in order."""
    found: dict[str, str] = {}
    for piece in _STATEMENT.findall(text):
        code = re.sub(r"--[^\n]*\n", "", piece).strip()
        named = _NAMED.match(code)
        name = f"{named[1]} {named[2]}" if named else code
        if named and named[1] == "TRIGGER":
            table = re.search(r"\bON ([\w.]+)", code)
            name += f" ON {table[1] if table else '?'}"
        found[name] = piece.strip()
    return found


def before(commit: str) -> str:
    """All schema files of a commit, in their order."""
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", commit, "sql/schema/"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return "\n".join(
        subprocess.run(
            ["git", "show", f"{commit}:{name}"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in sorted(listed)
    )


def draft(old: dict[str, str], new: dict[str, str]) -> str:
    """The migration's text: drops, tables to be altered, then everything that is new."""
    changed = [name for name in new if name in old and _code(old[name]) != _code(new[name])]
    views = [name for name in old if name.startswith("VIEW") and new.get(name) != old[name]]
    kinds = ("INDEX", "FUNCTION", "TRIGGER")
    gone = [name for name in old if name not in new and name.startswith(kinds)]
    lines = [f"DROP {name};" for name in reversed(views)]
    lines += [
        f"DROP {_drop(name)};"
        for name in [*gone, *changed]
        if name.startswith(("INDEX", "TRIGGER")) or name in gone
    ]
    for name in changed:
        if name.startswith("TABLE"):
            both = f"-- WAS\n{old[name]}\n-- IS\n{new[name]}"
            lines.append("\n".join(f"-- ALTER: {line}" for line in both.splitlines()))
    of_views = tuple(name.removeprefix("VIEW ") for name in views)
    for name, text in new.items():
        again = name.startswith(("TRIGGER", "GRANT")) and any(
            re.search(rf"\b{re.escape(view)}\b", text) for view in of_views
        )
        other = name in [*changed, *views] and not name.startswith("TABLE")
        if name not in old or again or other:
            replaced = name in changed and name.startswith("FUNCTION")
            lines.append(
                text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION") if replaced else text
            )
    return "\n\n".join(lines) + "\n"


def _drop(name: str) -> str:
    if name.startswith("INDEX") and "." not in name:
        return name.replace("INDEX ", "INDEX prepaid.")
    return name


def _code(text: str) -> str:
    return re.sub(r"\s*--[^\n]*", "", text).strip()


if __name__ == "__main__":
    now = "\n".join(path.read_text() for path in sorted((ROOT / "sql/schema").glob("*.sql")))
    print(draft(statements(before(sys.argv[1])), statements(now)), end="")
