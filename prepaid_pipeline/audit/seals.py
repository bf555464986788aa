"""The seals of the audit log: hash-chained, made after the work, verified against it.

docs/audit.md says what they prove. Where they are copied to outside the database is in ``anchors``.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from prepaid_pipeline.database import queries
from prepaid_pipeline.language.english import count, minute

log = logging.getLogger(__name__)

# What prepaid.seal_audit_log takes at once.
ENTRIES_PER_SEAL = 50_000
# Progress is told after so many; the entries of one seal are hashed at a time, whatever this is.
_SEALS_AT_ONCE = 100
# So many ids, or ranges of them, are named in a sentence; a finding has all of them.
_RUNS_SHOWN = 20
_SQL = "audit/verify"


@dataclass(frozen=True)
class Seal:
    """The newest seal: what an anchor keeps. Hashes are SHA-256 in hexadecimal; ``first_hash`` is
    that of seal 1, which says which log it is.
    """

    seal_number: int
    sealed_at: datetime
    sealed_through: int
    seal_hash: str
    first_hash: str | None


@dataclass(frozen=True)
class Anchor:
    """That a seal had this hash, as something outside the database records it."""

    source: str
    seal_number: int
    seal_hash: str


def sentence(seal_number: int, seal_hash: str) -> str:
    """What an anchor says in one line, as ``anchors.read`` finds it again."""
    return f"audit seal {seal_number} sha256 {seal_hash}"


@dataclass(frozen=True)
class Finding:
    """One proof that the log was changed: a sentence, the seal it is about and the entries' ids."""

    what: str
    text: str
    seal_number: int | None = None
    ids: list[int] = field(default_factory=list)


def seal(engine: Engine, *, wait: bool = False) -> int:
    """Seal what is committed and not sealed yet; how many entries.

    When somebody else is sealing at this moment it returns at once, and the next call seals what
    that one did not see; with ``wait`` it waits. Call it outside any transaction, after the work.
    """
    total = 0
    while True:
        with engine.begin() as connection:
            sealed = queries.statement("audit/seal").execute(connection, {"wait": wait}).scalar()
        total += sealed or 0
        if (sealed or 0) < ENTRIES_PER_SEAL:
            return total


def seal_after(engine: Engine) -> None:
    """Seal after work that is done and stored already: a failure here does not undo the work."""
    try:
        seal(engine)
    except DBAPIError as error:
        log.warning("the audit log could not be sealed; the next batch will do it: %s", error.orig)


def newest(engine: Engine) -> Seal | None:
    """The newest seal; None if there is none."""
    with engine.connect() as connection:
        return newest_seen(connection)


def newest_seen(connection: Connection) -> Seal | None:
    """The newest seal that a transaction sees."""
    row = queries.statement(_SQL, "newest").execute(connection, {}).one_or_none()
    return None if row is None else Seal(**row._mapping)


def unsealed(engine: Engine) -> int:
    """How many entries have no seal yet."""
    with engine.connect() as connection:
        return unsealed_seen(connection)


def unsealed_seen(connection: Connection) -> int:
    """How many entries that a transaction sees are not sealed yet."""
    return int(queries.statement(_SQL, "unsealed").execute(connection, {}).scalar_one())


@dataclass(frozen=True)
class Proof:
    """What the seals say of some entries: how many there are, which are not sealed yet, and which
    are not what was sealed or were inserted afterwards.
    """

    entries: int
    unsealed: list[int]
    changed: list[int]

    def __str__(self) -> str:
        if self.changed:
            return (
                f"THE LOG WAS CHANGED: {_named(self.changed)} changed or inserted afterwards."
                " See 'prepaid audit verify'."
            )
        left = f"; not sealed yet: {count(len(self.unsealed))}" if self.unsealed else ""
        sealed = self.entries - len(self.unsealed)
        entries = f"{count(sealed)} of its {count(self.entries)} audit entries"
        return f"{entries} are as they were sealed{left}."


def of_plan(connection: Connection, plan: int) -> Proof:
    """The audit entries of one plan against their seals; costs milliseconds.

    An entry that was removed is not there to be checked: ``verify`` finds it.
    """
    rows = queries.statement(_SQL, "of_plan").execute(connection, {"plan": plan}).all()
    changed = [
        row.audit_id
        for row in rows
        if row.was_put_in or (row.seal_number is not None and not row.is_as_sealed)
    ]
    unsealed = [row.audit_id for row in rows if row.seal_number is None and not row.was_put_in]
    return Proof(len(rows), unsealed, changed)


def verify(
    engine: Engine,
    anchors: Iterable[Anchor] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """Recompute the chain over the whole log and compare it with ``anchors``; what is wrong.

    Empty: every sealed entry is as it was sealed, none is missing and none was put between them.
    That the newest ones are missing, or that all hashes were recomputed, only an anchor shows.
    ``progress`` gets the number of entries that were checked since the last call.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return examine(connection, anchors, progress)


def examine(
    connection: Connection,
    anchors: Iterable[Anchor] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """What ``verify`` finds, as a transaction sees the log that is under way."""
    return [
        *_chain(connection, progress),
        *_never_given_out(connection),
        *_against(connection, anchors),
    ]


def _chain(connection: Connection, progress: Callable[[int], None]) -> Iterator[Finding]:
    number = 0
    while True:
        asked = {"first": number + 1, "many": _SEALS_AT_ONCE}
        seals = queries.statement(_SQL, "seals").execute(connection, asked).all()
        if not seals:
            return
        for row in seals:
            if not row.has_predecessor:
                yield _gone(number + 1, row.seal_number - 1)
            yield from _seal(connection, row)
            number = row.seal_number
        progress(sum(row.entries for row in seals))


def _gone(first: int, last: int) -> Finding:
    named = f"seal {first} is" if first == last else f"seals {first} to {last} are"
    return Finding("seal_missing", f"{named} missing: removed from the middle of the chain", first)


def _seal(connection: Connection, row: Any) -> Iterator[Finding]:
    number, made = row.seal_number, f"seal {row.seal_number} of {minute(row.sealed_at)}"
    if not row.is_itself:
        yield Finding("seal_changed", f"{made} was changed: its own hash does not match it", number)
    if not row.is_chained and row.has_predecessor:
        text = f"{made} does not continue the previous seal: that one was recomputed or replaced"
        yield Finding("chain_broken", text, number)
    if not row.is_in_order:
        text = f"{made} lists entries that it cannot contain: they were sealed or given up earlier"
        yield Finding("seal_impossible", text, number)
    if not row.entries_are_theirs:
        yield from _entries(connection, number, made)
    if inserted := _ids(row.inserted):
        text = f"{_named(inserted)} inserted into the log after {made} had closed it there"
        yield Finding("inserted", text, number, inserted)


def _entries(connection: Connection, number: int, made: str) -> Iterator[Finding]:
    asked = {"seal_number": number}
    rows = queries.statement(_SQL, "entries").execute(connection, asked).all()
    if missing := [row.audit_id for row in rows if row.missing]:
        text = f"{_named(missing)} removed since {made} was made"
        yield Finding("deleted", text, number, missing)
    if changed := [row.audit_id for row in rows if not row.missing]:
        text = f"{_named(changed)} changed since {made} was made"
        yield Finding("changed", text, number, changed)
    if not rows:
        text = f"the entries of {made} are not those that it was made from"
        yield Finding("changed", text, number)


def _never_given_out(connection: Connection) -> Iterator[Finding]:
    rows = queries.statement(_SQL, "never_given_out").execute(connection, {})
    if ids := [int(row.audit_id) for row in rows]:
        text = f"{_named(ids)} inserted into the log under ids that it never issued"
        yield Finding("inserted", text, None, ids)


def _against(connection: Connection, anchors: Iterable[Anchor]) -> Iterator[Finding]:
    for anchor in anchors:
        asked = {"seal_number": anchor.seal_number}
        found = queries.statement(_SQL, "seal_hash").execute(connection, asked).scalar()
        if found == anchor.seal_hash:
            continue
        number = anchor.seal_number
        said = f"{anchor.source} records seal {number}"
        if found is None:
            text = f"{said}, which no longer exists: the end of the log was removed"
            yield Finding("tail_removed", text, number)
        else:
            text = f"{said} with another hash: the log was rewritten, or it is another database's"
            yield Finding("rewritten", text, number)


def _named(ids: list[int]) -> str:
    """``entry 7 was``, ``entries 3-5, 9 were``, and no more than a line of them."""
    runs = list[list[int]]()
    for number in ids:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    shown = ", ".join("-".join(map(str, run)) for run in runs[:_RUNS_SHOWN])
    more = f" and others, {count(len(ids))} in all," if len(runs) > _RUNS_SHOWN else ""
    return f"entry {shown} was" if len(ids) == 1 else f"entries {shown}{more} were"


def _ids(multirange: str) -> list[int]:
    """The ids of an int8multirange in PostgreSQL's own form, such as ``{[3,5),[9,10)}``."""
    spans = (span.split(",") for span in multirange.strip("{}[)").split("),[") if span)
    return [n for first, end in spans for n in range(int(first), int(end))]
