"""Erasing a customer: personal data in the database, and the mails that were written as files."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine

from prepaid_pipeline.database import queries
from prepaid_pipeline.mail.transport import file_of
from prepaid_pipeline.people import decisions
from prepaid_pipeline.settings.load import Settings


@dataclass(frozen=True)
class Erased:
    """How many mails lost their bytes, and how many files of them were deleted."""

    mails: int
    files: int


def erase(
    engine: Engine, settings: Settings, person: str, ref: str, reason: str, as_of: date
) -> Erased:
    """Erase a customer under a person's name (docs/erasure.md says what that is).

    Raises NotAllowed in the database's own words, as while the customer has a live plan. A file
    that is gone already is not an error.
    """
    deleted = 0
    with decisions.acting(engine, person, "erase a customer", as_of) as connection:
        asked = {"ref": ref, "reason": reason}
        found = queries.statement("operations/erasure").execute(connection, asked).scalar_one()
        # Before the commit: if we die between the files, the same again finds the customer.
        for message_id in found:
            path = file_of(settings.mail_directory, message_id)
            if path.is_file():
                path.unlink()
                deleted += 1
    return Erased(len(found), deleted)
