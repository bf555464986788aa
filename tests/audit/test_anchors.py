"""Anchors: written once a day outside the database, read again by verify."""

import email
from dataclasses import replace
from email import policy
from pathlib import Path

import pytest

from prepaid_pipeline.audit import anchors, seals
from prepaid_pipeline.errors import MailNotSent, SettingError
from prepaid_pipeline.mail.anchor_mail import send_anchor
from prepaid_pipeline.settings.load import Settings
from tests.audit.test_command import tamper
from tests.audit.writers import write
from tests.cli.conftest import Prepaid, prepaid, typed
from tests.world import TODAY, World

__all__ = ["prepaid", "typed"]


def files(settings: Settings) -> list[Path]:
    return sorted(Path(settings.reports, "anchors").glob("*"))


def test_an_anchor_is_a_file_of_the_day_and_a_mail(world: World, settings: Settings) -> None:
    settings = settings.model_copy(
        update={"anchor_to": "auditor@example.com, b@example.com", "alert_to": None}
    )
    write(world.engine, 3)
    made = anchors.anchor(world.engine, settings, TODAY)
    assert made is not None
    assert send_anchor(settings, TODAY, made.seal)
    assert [path.name for path in files(settings)] == ["2026-11-02-seal-000001.txt"]
    (remembered,) = anchors.stored(settings)
    assert (remembered.seal_number, remembered.seal_hash) == (1, made.seal.seal_hash)
    mails = sorted(settings.mail_directory.rglob("*.eml"))
    assert len(mails) == 2
    for mail in mails:
        assert anchors.from_file(mail) == [replace(remembered, source=str(mail))]
    message = email.message_from_bytes(mails[0].read_bytes(), policy=policy.default)
    assert message["Subject"] == "Audit log of 2026-11-02: seal 1"
    # Again on the same day: the same file; after more entries: another one.
    anchors.anchor(world.engine, settings, TODAY)
    assert len(files(settings)) == 1
    write(world.engine)
    anchors.anchor(world.engine, settings, TODAY)
    names = [path.name for path in files(settings)]
    assert names == ["2026-11-02-seal-000001.txt", "2026-11-02-seal-000002.txt"]
    assert seals.verify(world.engine, anchors.stored(settings)) == []


def test_without_an_address_there_is_no_mail(world: World, settings: Settings) -> None:
    assert anchors.anchor(world.engine, settings, TODAY) is None  # nothing to anchor yet
    write(world.engine)
    made = anchors.anchor(world.engine, settings, TODAY)
    assert made is not None
    assert not send_anchor(settings, TODAY, made.seal)
    assert not list(settings.mail_directory.rglob("*.eml"))


def test_an_anchor_that_was_changed(world: World, settings: Settings) -> None:
    write(world.engine)
    anchors.anchor(world.engine, settings, TODAY)
    (file,) = files(settings)
    file.write_text(file.read_text().replace("audit seal 1", "audit seal 2"))
    with pytest.raises(SettingError, match="somebody changed it"):
        anchors.anchor(world.engine, settings, TODAY)


def test_when_the_mail_fails_the_file_is_there(world: World, settings: Settings) -> None:
    nobody = settings.model_copy(
        update={"anchor_to": "a@example.com", "smtp_url": "smtp://127.0.0.1:1"}
    )
    write(world.engine)
    made = anchors.anchor(world.engine, nobody, TODAY)
    assert made is not None
    with pytest.raises(MailNotSent):
        send_anchor(nobody, TODAY, made.seal)
    assert len(anchors.stored(settings)) == 1


def test_verify_reads_the_anchors_of_the_store(world: World, prepaid: Prepaid) -> None:
    for _ in range(2):
        write(world.engine, 2)
        done = prepaid("audit", "anchor", "--as-of", "2026-11-02")
        assert done.code == 0
    assert done.out == "Seal 2 is anchored in anchors/2026-11-02-seal-000002.txt.\n"
    assert "anchors compared: 3;" in prepaid("audit", "verify").out
    # The tail goes, then as many seals are made again: both are found.
    tamper(
        world,
        "DELETE FROM prepaid.audit_log WHERE audit_id > 2;"
        " DELETE FROM prepaid.audit_seals WHERE seal_number = 2",
    )
    gone = prepaid("audit", "verify")
    assert gone.code == 1
    assert "2026-11-02-seal-000002.txt records seal 2, which no longer exists" in gone.out
    write(world.engine)
    seals.seal(world.engine)
    again = prepaid("audit", "verify")
    assert again.code == 1
    assert "records seal 2 with another hash: the log was rewritten" in again.out
