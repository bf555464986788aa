"""Errors that a person can act on.

PrepaidError
├── SettingError      a PREPAID_… setting cannot be used
├── DatabaseNotReady  the database cannot be reached or is not migrated
├── ImportRefused     an import file has bad lines; nothing of it was imported
├── NotAllowed        the database refused what a person or a step asked for
├── UnknownThing      a plan, task or month that does not exist
└── MailNotSent       an email could not be handed over (mail.transport says which way)
"""


class PrepaidError(Exception):
    """Something went wrong; the message says what, where and what to do."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class SettingError(PrepaidError):
    """A setting cannot be used."""


class DatabaseNotReady(PrepaidError):  # noqa: N818  (named for what the reader must do about it)
    """The database cannot be reached or is not migrated. Run 'prepaid migrate'."""


class ImportRefused(PrepaidError):  # noqa: N818
    """An import file has bad lines; nothing of it was imported."""


class NotAllowed(PrepaidError):  # noqa: N818
    """The database refused the request."""


class UnknownThing(PrepaidError):  # noqa: N818
    """There is no such plan, task or month."""


class MailNotSent(PrepaidError):  # noqa: N818
    """An email could not be handed over."""
