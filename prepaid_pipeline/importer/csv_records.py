"""Reading CSV line by line: a file of any size, or of one endless line, takes no memory."""

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from prepaid_pipeline.importer.reports import Problems

# Bytes. All columns at their longest stay far below it.
MAX_LINE = 1 << 20
_LINES_PER_CALL = 1000
_BOM = b"\xef\xbb\xbf"
_CSV_HINTS = {
    "field larger": "a field of at most 131,072 characters: is a closing quote missing?",
    "unexpected end": "a closing quote",
    "expected after": "a comma after the closing quote; a quote inside a field is written twice",
    "new-line character": "lines that end in LF or CRLF",
}


class _Unreadable(Exception):  # noqa: N818
    """Reading cannot go on behind this line. Arguments: what was found, what was expected."""


class _Lines:
    """The decoded lines of a file; ``number`` and ``flaw`` say where and what was broken."""

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None]) -> None:
        self.number = 0
        self.flaw: str | None = None
        self._stream = stream
        self._on_read = on_read

    def __iter__(self) -> Iterator[str]:
        offset = 0
        while raw := self._stream.readline(MAX_LINE + 1):
            self.number += 1
            if len(raw) > MAX_LINE:
                raise _Unreadable(
                    f"a line longer than {MAX_LINE:,} bytes", "a CSV file with one record per line"
                )
            text = self._decode(raw, offset)
            offset += len(raw)
            if self.number % _LINES_PER_CALL == 0:
                self._on_read(offset)
            yield text

    def _decode(self, raw: bytes, offset: int) -> str:
        if self.number == 1 and raw.startswith(_BOM):
            raw, offset = raw[len(_BOM) :], len(_BOM)
        if (nul := raw.find(0)) >= 0:
            self.flaw = self.flaw or f"a NUL byte (byte {offset + nul} of the file)"
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self.flaw = self.flaw or (
                f"the byte 0x{raw[error.start]:02X} (byte {offset + error.start} of the file)"
            )
            # Surrogates stand for the broken bytes, so that the column can be named.
            return raw.decode(errors="surrogateescape")


class CsvRecords:
    """Line and fields of every record that is intact; the header is one, blank lines are not.

    What is broken goes to ``problems``. ``columns`` may be set when the header is known, so that
    messages name them; ``rows`` counts the records behind the header, intact or not.
    """

    def __init__(
        self, stream: BinaryIO, problems: Problems, on_read: Callable[[int], None]
    ) -> None:
        self.columns: Sequence[str] = ()
        self._count = 0
        self._lines = _Lines(stream, on_read)
        self._problems = problems

    @property
    def rows(self) -> int:
        """Records behind the header so far."""
        return max(0, self._count - 1)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(iter(self._lines), strict=True)
        while True:
            line = self._lines.number + 1
            self._lines.flaw = None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                hint = next((v for k, v in _CSV_HINTS.items() if k in str(error)), "valid CSV")
                self._problems.add(line, "-", f"broken CSV ({error})", hint)
                return
            except _Unreadable as error:
                self._problems.add(self._lines.number, "-", *error.args)
                return
            self._count += bool(fields) or self._lines.flaw is not None
            if self._lines.flaw:
                self._problems.add(line, self._flawed(fields), self._lines.flaw, "UTF-8 text")
                if self._count == 1:
                    return
            elif fields:
                yield line, fields

    def _flawed(self, fields: list[str]) -> str:
        for name, field in zip(self.columns, fields, strict=False):
            if any(c == "\0" or "\udc80" <= c <= "\udcff" for c in field):
                return name
        return "-"
