"""docs/import.md: every column is described, and the worked example comes out as it says."""

import re
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prepaid_pipeline.importer.files import File, files
from tests.importer.folders import rows, take

TEXT = Path("docs/import.md").read_text()


@pytest.mark.parametrize("file", files(UTC), ids=lambda file: file.filename)
def test_every_column_is_described(file: File) -> None:
    section = TEXT.split(f"### {file.filename}")[1].split("\n### ")[0].split("\n## ")[0]
    described = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    names = [name for cell in described for name in cell.split(", ")]
    assert names == ["column", *(column.name for column in file.columns)]


def test_the_worked_example(engine: Engine, folder: Path) -> None:
    example = dict(re.findall(r"`(\w+)\.csv`\n```\n(.*?)```", TEXT, re.DOTALL))
    assert set(example) == {"customers", "plans", "addons", "subscriptions", "service_plans"}
    assert {r.status for r in take(engine, folder, example).values()} == {"imported"}
    query = "SELECT kind, net_amount, monthly_amount FROM prepaid.service_plans ORDER BY start_date"
    assert rows(engine, query) == [("new", 17, 12), ("renewal", 12, 12), ("renewal", 12, 12)]
