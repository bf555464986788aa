"""Anchors: copies of a seal outside the database, which prove that the log was not rewritten.

An anchor is any text that says ``audit seal 123 sha256 <64 hexadecimal digits>``: the file of a day
in the report store, the mail of that day, a published report.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline.audit import seals
from prepaid_pipeline.audit.seals import Anchor, Seal
from prepaid_pipeline.errors import UnknownThing
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.storage import Store

# Below PREPAID_REPORTS.
FOLDER = "anchors"

# Mails break lines where they like.
_SAID = re.compile(r"audit\s+seal\s+(\d+)\s+sha256\s+([0-9a-f]{64})")
_NAME = re.compile(rf"{FOLDER}/(\d{{4}}-\d\d-\d\d)-seal-(\d+)\.txt")


@dataclass(frozen=True)
class Anchored:
    """A seal that is now copied in the file ``name`` of the report store."""

    seal: Seal
    name: str


@dataclass(frozen=True)
class Latest:
    """The newest anchor of the report store: its seal, and when the file was written."""

    seal_number: int
    written_at: datetime


def anchor(engine: Engine, settings: Settings, day: date) -> Anchored | None:
    """Seal what is left, and copy the newest seal outside the database; None if there is none.

    The file has the day's name and is never changed; a mail says the same (``mail.anchor_mail``).
    Raises SettingError if the store cannot be written to.
    """
    seals.seal(engine, wait=True)
    newest = seals.newest(engine)
    if newest is None:
        return None
    name = f"{FOLDER}/{day.isoformat()}-seal-{newest.seal_number:06}.txt"
    Store.of(settings).keep(name, text(newest).encode())
    return Anchored(newest, name)


def stored(settings: Settings) -> list[Anchor]:
    """The anchors of the report store, oldest first."""
    store = Store.of(settings)
    files = [(name, store.read(name) or b"") for name in store.names(FOLDER)]
    return [
        found for name, content in files for found in read(name, content.decode(errors="replace"))
    ]


def latest(settings: Settings) -> Latest | None:
    """The anchor of the newest seal, of several that of the latest day; None if there is none.

    Reads no file: one look at the folder and one at the file. Raises what the store's own file
    system raises if it cannot be reached.
    """
    store = Store.of(settings)
    found = [
        (int(m[2]), m[1], m[0]) for name in store.names(FOLDER) if (m := _NAME.fullmatch(name))
    ]
    if not found:
        return None
    number, _, name = max(found)
    return Latest(number, store.written_at(name))


def _folded(seal_number: int, seal_hash: str) -> str:
    """Lines of less than 78 characters, which no mail program breaks."""
    return seals.sentence(seal_number, seal_hash).replace(" sha256 ", "\nsha256 ")


def text(seal: Seal) -> str:
    """An anchor for people and programs: the newest seal and the first one of its log."""
    said = _folded(seal.seal_number, seal.seal_hash)
    if seal.first_hash and seal.seal_number != 1:
        said += f"\n\nIt belongs to the log that begins with\n{_folded(1, seal.first_hash)}"
    return (
        f"{said}\n\nmade at {seal.sealed_at.isoformat()}, over the entries up to"
        f" {seal.sealed_through}\n\nKeep this where nobody who can write to the database can change"
        " it. Later,\n\n    prepaid audit verify --anchor FILE\n\nsays whether the log still has"
        " everything that it had.\n"
    )


def read(source: str, content: str) -> list[Anchor]:
    """The anchors that a text has, named by ``source``."""
    return [Anchor(source, int(number), said) for number, said in _SAID.findall(content)]


def from_file(path: Path) -> list[Anchor]:
    """The anchors of a file of any kind of text. Raises UnknownThing if it has none."""
    found = read(str(path), path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise UnknownThing(
            f"{path} is not an anchor: it does not contain 'audit seal … sha256 …' with 64 digits"
        )
    return found
