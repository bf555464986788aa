"""Moments that Python's datetime cannot hold: of year 10000, before year 1, infinity.

Providers may write them, and the landing table takes them. Whoever reads rows gets the server's
text for them, where the driver would end the whole query.
"""

from datetime import datetime

from psycopg import DataError
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.types.datetime import TimestamptzLoader


class MomentLoader(Loader):
    """A timestamptz as a datetime; as the server's text where it is none."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._usual = TimestamptzLoader(oid, context)

    def load(self, data: Buffer) -> datetime | str:
        """Never raises for what the server has written."""
        try:
            return self._usual.load(data)
        except DataError:
            return bytes(data).decode()
