"""The invariants of ``prepaid check``, one SQL file each in ``sql/operations/invariants``.

A query returns one row per violation, its first column ``finding`` says which. The comment on top
of a file is the rule in words. A notice is made in the same way: what somebody should know of, and
what violates nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from prepaid_pipeline.context import Context
from prepaid_pipeline.database import queries
from prepaid_pipeline.revenue import late_data

_NOTICES = ("operations/imported_below_list",)


@dataclass(frozen=True)
class Checked:
    """A rule and the sentences about what breaks it."""

    name: str
    rule: str
    findings: list[str]


def run(engine: Engine, context: Context) -> list[Checked]:
    """Run all checks on one snapshot; nothing that they see or compute is changed or kept."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        late_data.recompute(connection, context.as_of)
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return _all(queries.names("operations/invariants"), connection, context)


def notices(engine: Engine, context: Context) -> list[Checked]:
    """What is no violation and still to be known; only those that find something."""
    with engine.connect() as connection:
        found = _all(_NOTICES, connection, context)
    return [notice for notice in found if notice.findings]


def _all(names: Iterable[str], connection: Connection, context: Context) -> list[Checked]:
    return [
        Checked(
            name.rpartition("/")[2],
            queries.read(name).splitlines()[0].removeprefix("-- "),
            list(queries.statement(name).execute(connection, context.parameters()).scalars()),
        )
        for name in names
    ]
