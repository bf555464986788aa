"""prepaid audit verify, as a person and a program run it."""

from pathlib import Path

import pytest
from sqlalchemy import text

from prepaid_pipeline.audit import anchors, seals
from tests.audit.writers import write
from tests.cli.conftest import Prepaid, prepaid, typed
from tests.world import World

__all__ = ["prepaid", "typed"]


def tamper(world: World, statement: str) -> None:
    with world.engine.begin() as connection:
        for table in ("audit_log", "audit_seals"):
            connection.execute(text(f"ALTER TABLE prepaid.{table} DISABLE TRIGGER ALL"))
        connection.execute(text(statement))


@pytest.fixture
def sealed(world: World) -> World:
    for _ in range(3):
        write(world.engine, 4)
        seals.seal(world.engine)
    return world


def test_nothing_is_wrong(sealed: World, prepaid: Prepaid) -> None:
    write(sealed.engine, 2)
    done = prepaid("audit", "verify")
    assert done.code == 0
    assert done.out == (
        "The audit log is as it was sealed: 3 seals, up to entry 12; anchors compared: 0;"
        " entries not sealed yet: 2.\n"
    )
    # What was not sealed is by now: every command leaves the log sealed.
    told = prepaid("audit", "verify", "--json").json()
    assert (told["findings"], told["unsealed_entries"]) == ([], 0)
    assert told["newest_seal"]["seal_number"] == 4


def test_what_was_changed_is_named(sealed: World, prepaid: Prepaid) -> None:
    tamper(sealed, "UPDATE prepaid.audit_log SET actor = 'me' WHERE audit_id IN (2, 3, 4, 7)")
    done = prepaid("audit", "verify")
    assert done.code == 1
    first, second, end = done.out.splitlines()
    assert first.startswith("CHANGED  entries 2-4 were changed since seal 1 of ")
    assert second.startswith("CHANGED  entry 7 was changed since seal 2 of ")
    assert end.startswith("The audit log was changed: ")
    told = prepaid("audit", "verify", "--json")
    assert told.code == 1
    assert [(f["what"], f["seal_number"], f["ids"]) for f in told.json()["findings"]] == [
        ("changed", 1, [2, 3, 4]),
        ("changed", 2, [7]),
    ]


@pytest.mark.parametrize("wrapped", ["{}", "Subject: x\r\n\r\n> quoted\r\n\r\n{}", "<p>{}</p>"])
def test_an_anchor_of_any_kind_of_text(
    sealed: World, prepaid: Prepaid, tmp_path: Path, wrapped: str
) -> None:
    newest = seals.newest(sealed.engine)
    assert newest is not None
    file = tmp_path / "kept"
    file.write_text(wrapped.format(anchors.text(newest)))
    assert "anchors compared: 2" in prepaid("audit", "verify", "--anchor", file).out
    tamper(
        sealed,
        "DELETE FROM prepaid.audit_log WHERE audit_id > 8;"
        " DELETE FROM prepaid.audit_seals WHERE seal_number = 3",
    )
    assert prepaid("audit", "verify").code == 0
    done = prepaid("audit", "verify", "--anchor", file)
    assert done.code == 1
    assert (
        f"{file} records seal 3, which no longer exists: the end of the log was removed" in done.out
    )


def test_a_file_that_is_no_anchor(sealed: World, prepaid: Prepaid, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("audit seal 3 sha256 tooshort")
    done = prepaid("audit", "verify", "--anchor", file)
    assert done.code == 1
    assert "is not an anchor" in done.err
    assert prepaid("audit", "verify", "--anchor", tmp_path / "nothing").code == 2


def test_sealing_by_hand(world: World, prepaid: Prepaid) -> None:
    write(world.engine, 2)
    assert prepaid("audit", "seal").out == "Entries sealed: 2. The newest seal is number 1.\n"
    assert prepaid("audit", "seal").out == "Entries sealed: 0. The newest seal is number 1.\n"
