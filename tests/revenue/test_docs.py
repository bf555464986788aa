"""docs/revenue.md says what the code does: every rule, every limit, every table."""

import re
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline.revenue.report.content.sections.deferred import LINES
from prepaid_pipeline.revenue.report.content.sections.renewals import OUTCOMES
from prepaid_pipeline.revenue.rules import (
    CUSTOMERS_WITH_EMAIL,
    HOLD_DAYS,
    INPUTS,
    KINDS,
    MONTHLY_FIGURES,
    MONTHLY_REPORT,
    MOVEMENTS,
    RECORD_DAYS,
    REVERSALS,
    TASK_DAYS,
    WAITING_DAYS,
)
from tests.revenue.history import rows

TEXT = (Path(__file__).parents[2] / "docs" / "revenue.md").read_text(encoding="utf-8")


def test_every_rule_is_described_and_no_other() -> None:
    described = {line.split("|")[2].strip() for line in TEXT.splitlines() if line.count("|") > 2}
    written = {rule.says for s in (*MONTHLY_FIGURES, *MONTHLY_REPORT, *INPUTS) for rule in s.rules}
    assert written <= described
    after = TEXT.partition("<!-- rules -->")[2]
    tables = [line.split("|")[2].strip() for line in after.splitlines() if line.count("|") > 2]
    assert {cell for cell in tables if cell.endswith(".")} == written


def test_limits_are_the_codes() -> None:
    words = re.sub(r"\s+", " ", TEXT)
    assert f"no more than {round((1 - CUSTOMERS_WITH_EMAIL) * 100)} %" in words
    assert f"outcome within {RECORD_DAYS} days, a task its decision within {TASK_DAYS}" in words
    assert f"a held plan is released within {HOLD_DAYS}" in words
    assert f"has waited for more than {WAITING_DAYS} days" in words


def test_words_are_the_codes() -> None:
    for word in (*KINDS, *MOVEMENTS, *REVERSALS, *OUTCOMES):
        assert f"\n| {word} | " in TEXT
    _, _, reconciliation = TEXT.partition("## Reconciliation")
    lines = re.findall(r"^\| \**(\w+?)\** \| ", reconciliation.partition("\n## ")[0], re.MULTILINE)
    assert lines == ["line", *LINES]


def test_tables_and_columns_exist(engine: Engine) -> None:
    described = re.findall(r"^\| `revenue\.(\w+)` \| ([^|]+) \|$", TEXT, re.MULTILINE)
    assert len(described) >= 12
    for table, text in described:
        found = rows(
            engine,
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'revenue' AND table_name = :table",
            table=table,
        )
        columns = {name for (name,) in found}
        named = set(re.findall(r"\w+", re.sub(r"\([^)]*\)|:.*", "", text)))
        assert named <= columns, table
