"""Databases of before the first release: one at 0006 becomes one of 0.1.0, if it equals that.

Both are compared on the server that they are on, so that it writes both in the same words: inside
the transaction of the upgrade the product's schemas are put aside, those of 0.1.0 are made in their
place and read, and all of that is rolled back.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from prepaid_pipeline.database import queries
from prepaid_pipeline.errors import DatabaseNotReady

LAST = "0006"
EARLIER = frozenset({"0001", "0002", "0003", "0004", "0005"})
FIRST_RELEASE = "0.1.0"

_SQL = "database/adoption"
_NAMED = 5
# A server that reads what it wrote itself, as after a restore, sets other brackets and names
# columns that had no name.
_REWRITTEN = re.compile(r"(?<=::text) AS text\b|[()\s]")


def adopt(connection: Connection) -> None:
    """Make a database at 0006 one of 0.1.0, in the transaction of the caller.

    Raises DatabaseNotReady if it still differs from 0.1.0 after the one file that mends it.
    """
    queries.run_file(connection, f"migrations/from_{LAST}")
    found = list(differences(connection))
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise DatabaseNotReady(
            f"The database is at migration {LAST} and is not what the program of that revision"
            f" makes: {'; '.join(found[:_NAMED])}{more}. Put that right (docs/upgrade.md), then run"
            " 'prepaid migrate' again. Nothing was changed."
        )
    stamp = queries.statement(_SQL, "stamp")
    stamp.execute(connection, {"release": FIRST_RELEASE})


def differences(connection: Connection) -> Iterator[str]:
    """What of the database is otherwise than in 0.1.0, each in a few words."""
    here = _catalogue(connection)
    with connection.begin_nested() as savepoint:
        for part in ("put_prepaid_aside", "put_revenue_aside"):
            queries.statement(_SQL, part).execute(connection, {})
        queries.run_file(connection, f"migrations/{FIRST_RELEASE}")
        there = _catalogue(connection)
        savepoint.rollback()
    # A role that 0.1.0 does not know may have been given rights by whoever runs the installation.
    known = {found.grantee for found in there.values()}
    only_one_has = here.keys() ^ there.keys()
    for thing, found in sorted((there | here).items()):
        if found.part_of in only_one_has:
            continue  # that is told
        if thing not in here:
            yield f"{thing} is missing"
        elif thing not in there:
            if found.grantee in known:
                yield f"{thing} should not be there"
        elif found != there[thing]:
            yield f"{thing} differs"


@dataclass(frozen=True)
class _Found:
    """What a thing is, as the server writes it; for a right, whose it is."""

    definition: str
    part_of: str | None
    grantee: str | None


def _catalogue(connection: Connection) -> dict[str, _Found]:
    """What the product's schemas are made of, by name."""
    rows = queries.statement("database/catalogue").execute(connection, {})
    return {
        row.thing: _Found(_REWRITTEN.sub("", row.definition), row.part_of, row.grantee)
        for row in rows
    }
