"""The SQL files and the names by which Python calls them: none is unknown, none is left over."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from prepaid_pipeline.database import queries
from prepaid_pipeline.importer.parts import PARTS
from prepaid_pipeline.process.steps import STEPS
from prepaid_pipeline.revenue import rules
from prepaid_pipeline.revenue.drill_down import FIGURES
from prepaid_pipeline.revenue.figures import STAGES

ROOT = Path(__file__).parents[2]
PACKAGES = ("prepaid_pipeline", "assets", "sensors")

# Whole folders whose files are taken one after the other.
FOLDERS = ("schema", "migrations", "operations/invariants")
# Files whose parts are asked for by a name that is put together or kept as data.
RULES = [
    rule
    for suites in (rules.INPUTS, rules.MONTHLY_FIGURES, rules.MONTHLY_REPORT)
    for suite in suites
    for rule in suite.rules
    if rule.query is not None
]
AS_DATA = {
    **{f"importer/{file}": set(parts.names) for file, parts in PARTS.items()},
    **{r.query: {s.name for s in RULES if s.query == r.query} for r in RULES if r.query},
}
PUT_TOGETHER = {
    "revenue/drill_down": {f"published_{figure.name}" for figure in FIGURES.values()},
}


@cache
def files() -> frozenset[str]:
    directory = queries.sql_directory()
    found = {path.relative_to(directory).with_suffix("") for path in directory.rglob("*.sql")}
    return frozenset(str(name) for name in found)


def parts(name: str) -> list[str]:
    return re.findall(r"^-- name: (\w+)$", queries.read(name), re.MULTILINE)


class Module:
    """What a module says of SQL: the files it names, and the words that may name their parts."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(ROOT)
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        name = ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")
        self._values = vars(import_module(name))

    def word(self, node: ast.expr) -> str | None:
        """The text of a literal, or of a name of the module that stands for one."""
        if isinstance(node, ast.Constant):
            value = node.value
        else:
            value = self._values.get(node.id) if isinstance(node, ast.Name) else None
        return value if isinstance(value, str) else None

    def words(self) -> set[str]:
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.expr))
        return {word for node in nodes if (word := self.word(node)) is not None}

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))


@cache
def modules() -> tuple[Module, ...]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    # An environment of migrations can be imported by Alembic only.
    return tuple(Module(path) for path in paths if "revisions" not in path.parts)


def literal_parts() -> Iterator[tuple[str, str, str]]:
    """Each file and part that stand beside each other in a call, whichever helper it goes to."""
    for module in modules():
        for call in module.calls():
            for file, part in zip(call.args, call.args[1:], strict=False):
                name, literal = module.word(file), isinstance(part, ast.Constant)
                if name in files() and literal and (word := module.word(part)) is not None:
                    yield f"{module.path}:{call.lineno}", name, word


def run_through() -> set[str]:
    """The files that are run from their first statement to their last, and nothing else."""
    found = {*STAGES, *STEPS.values()}
    for module in modules():
        for call in module.calls():
            if isinstance(call.func, ast.Attribute) and call.func.attr == "run":
                found |= {word for node in call.args if (word := module.word(node)) in files()}
    return found


def test_a_part_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        LookupError, match=r"sql/process/due\.sql has no part 'totls'; it has .*tot"
    ):
        queries.statement("process/due", "totls")


def test_every_part_that_is_called_is_there() -> None:
    called = list(literal_parts())
    assert len(called) > 150
    assert [each for each in called if each[2] not in parts(each[1])] == []


def test_a_file_is_asked_for_without_a_part_only_if_it_has_one_statement() -> None:
    alone = [
        (f"{module.path}:{call.lineno}", name)
        for module in modules()
        for call in module.calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "statement"
        and len(call.args) == 1
        and (name := module.word(call.args[0])) in files()
    ]
    assert len(alone) > 10
    assert [each for each in alone if len(queries.script(each[1])) > 1] == []


def test_every_part_is_called() -> None:
    named: dict[str, set[str]] = {}
    for module in modules():
        words = module.words()
        for name in words & files():
            named.setdefault(name, set()).update(words)
    for table in (AS_DATA, PUT_TOGETHER):
        for name, more in table.items():
            named.setdefault(name, set()).update(more)
    in_folders = {name for folder in FOLDERS for name in queries.names(folder)}
    assert sorted(files() - in_folders - named.keys()) == []
    asked_for = files() - in_folders - run_through()
    left = {f"{name}: {part}" for name in asked_for for part in set(parts(name)) - named[name]}
    assert sorted(left) == []


def test_no_file_has_two_parts_of_one_name() -> None:
    assert [name for name in files() if len(set(parts(name))) < len(parts(name))] == []


@pytest.mark.parametrize("file", PARTS)
def test_the_parts_of_an_import_file_stand_in_the_order_in_which_they_run(file: str) -> None:
    assert list(PARTS[file].names) == parts(f"importer/{file}")
