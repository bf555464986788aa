"""docs/triggers.md names every trigger of the database, with its table and event, and no other."""

import re
from pathlib import Path

from tests.world import World

PAGE = Path(__file__).parents[2] / "docs" / "triggers.md"
# tgtype is a bit mask: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate, 64 instead of.
_TRIGGERS = """
SELECT t.tgname, t.tgrelid::regclass::text,
       CASE WHEN t.tgtype & 64 > 0 THEN 'instead of '
            WHEN t.tgtype & 2 > 0 THEN 'before ' ELSE 'after ' END
       || concat_ws(', ', CASE WHEN t.tgtype & 4 > 0 THEN 'insert' END,
                    CASE WHEN t.tgtype & 16 > 0 THEN 'update' END,
                    CASE WHEN t.tgtype & 8 > 0 THEN 'delete' END,
                    CASE WHEN t.tgtype & 32 > 0 THEN 'truncate' END)
       || CASE WHEN t.tgtype & 1 > 0 THEN ', each row' ELSE '' END
       || CASE WHEN t.tgenabled = 'A' THEN ', always' ELSE '' END
FROM pg_trigger t WHERE NOT t.tgisinternal
"""


def written() -> list[tuple[str, ...]]:
    """Trigger, table and event of each line that begins with a trigger; each says an effect."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:3] == "| `"]
    assert all(len(row) == 4 and row[3] for row in rows)
    return [(row[0].strip("`"), row[1].strip("`"), row[2]) for row in rows]


def test_the_table_is_what_the_database_has(world: World) -> None:
    there = world.rows(_TRIGGERS)
    assert len(there) > 40
    assert sorted(written()) == sorted(there)


def test_what_is_called_instead_of_a_trigger_exists(world: World) -> None:
    named = set(re.findall(r"`(prepaid\.\w+)`", PAGE.read_text(encoding="utf-8")))
    there = world.rows(
        "SELECT 'prepaid.' || proname FROM pg_proc WHERE pronamespace = 'prepaid'::regnamespace"
        " UNION SELECT 'prepaid.' || relname FROM pg_class"
        " WHERE relnamespace = 'prepaid'::regnamespace"
    )
    assert named - {name for (name,) in there} == set()
