"""The invariants of ``prepaid check``: one SQL file each in ``sql/checks``, one row per violation.

The comment on top of a file is the rule in words; the first column of its query is ``finding``.
"""

from dataclasses import dataclass

from sqlalchemy import Engine

from prepaid_pipeline import late, queries
from prepaid_pipeline.process import Context


@dataclass(frozen=True)
class Checked:
    """A rule and the sentences about what breaks it."""

    name: str
    rule: str
    findings: list[str]


def run(engine: Engine, context: Context) -> list[Checked]:
    """Run all checks on one snapshot; nothing that they see or compute is changed or kept."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        late.recompute(connection, context.as_of)
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return [
            Checked(
                name.rpartition("/")[2],
                queries.read(name).splitlines()[0].removeprefix("-- "),
                list(queries.statement(name).execute(connection, context.parameters()).scalars()),
            )
            for name in queries.names("checks")
        ]
