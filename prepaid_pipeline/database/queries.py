"""SQL lives in files under ``sql/``; this module loads them by name. No SQL is made from strings.

A file is one statement, or several parts, each after a line ``-- name: what_it_does``. ``run`` goes
straight through a file, from its first part to its last; ``statement`` gives one part by its name.
What is decided between two parts (a loop, an early end, what becomes of their rows) is written in
Python, which then calls the parts by name; nothing looks at the name of a part to decide. That the
names in Python are those in the files is tested by ``tests/database/test_queries.py``.

Parameters are written ``:name``. Files are read once per process.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause, text

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Statement:
    """One SQL statement with its name and named parameters."""

    name: str
    clause: TextClause
    parameters: frozenset[str]

    def execute(self, connection: Connection, params: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute with those of ``params`` that the statement names (a script shares one set)."""
        return connection.execute(self.clause, {k: params[k] for k in self.parameters})


def sql_directory() -> Path:
    """Where the SQL files are: inside the installed package, or next to it in a checkout."""
    packaged = _PACKAGE / "sql"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "sql"


@cache
def read(name: str) -> str:
    """The text of ``sql/<name>.sql``. Raises FileNotFoundError."""
    return (sql_directory() / f"{name}.sql").read_text(encoding="utf-8")


def run_file(connection: Connection, name: str) -> None:
    """Run ``sql/<name>.sql`` as it stands, whatever its statements, colons and percent signs."""
    connection.exec_driver_sql(read(name), execution_options={"no_parameters": True})


@cache
def script(name: str) -> tuple[Statement, ...]:
    """The statements of ``sql/<name>.sql`` in the order of the file."""
    return parse(name, read(name))


def parse(name: str, sql: str) -> tuple[Statement, ...]:
    """The statements of a script that is kept elsewhere, such as the benchmarks'."""
    return tuple(_statements(name, sql))


def statement(name: str, part: str | None = None) -> Statement:
    """The only statement of ``sql/<name>.sql``, or its part of that name.

    Raises LookupError when the file has no such part.
    """
    statements = script(name)
    if part is None:
        (only,) = statements
        return only
    for found in statements:
        if found.name == part:
            return found
    known = ", ".join(s.name for s in statements)
    raise LookupError(f"sql/{name}.sql has no part {part!r}; it has {known}")


def run(connection: Connection, name: str, params: Mapping[str, Any]) -> None:
    """Execute ``sql/<name>.sql`` from its first statement to its last."""
    for each in script(name):
        each.execute(connection, params)


def names(directory: str) -> list[str]:
    """The names of the files in a directory under ``sql/``, sorted."""
    folder = sql_directory() / directory
    return sorted(f"{directory}/{path.stem}" for path in folder.glob("*.sql"))


def _statements(name: str, sql: str) -> Iterator[Statement]:
    part, lines = name.rpartition("/")[2], list[str]()
    for line in sql.splitlines():
        if line.startswith("-- name:"):
            if _has_code(lines):
                yield _statement(part, lines)
            part, lines = line.removeprefix("-- name:").strip(), []
        else:
            lines.append(line)
    yield _statement(part, lines)


def _has_code(lines: list[str]) -> bool:
    return any(line.strip() and not line.startswith("--") for line in lines)


def _statement(name: str, lines: list[str]) -> Statement:
    clause = text("\n".join(lines).strip().rstrip(";"))
    return Statement(name, clause, frozenset(clause._bindparams))
