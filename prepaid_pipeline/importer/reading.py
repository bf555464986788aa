"""Reading CSV line by line: a file of any size, or of one endless line, takes no memory."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from prepaid_pipeline.importer.files import Column, File
from prepaid_pipeline.importer.reports import Problems, quoted
from prepaid_pipeline.importer.values import BadValue

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

Record = tuple[int | str | None, ...]


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


class Reader:
    """The records of one file; what is wrong with it goes to ``problems``.

    ``rows`` counts the records read, ``given`` are the columns that the header has. ``on_read`` is
    told the bytes read so far, every 1,000 lines.
    """

    def __init__(
        self, path: Path, file: File, problems: Problems, on_read: Callable[[int], None]
    ) -> None:
        self.rows = 0
        self.given: list[str] = []
        self._path = path
        self._file = file
        self._problems = problems
        self._on_read = on_read

    def __iter__(self) -> Iterator[Record]:
        """Each good record: its line, then a value for every column of the file in order."""
        with self._path.open("rb") as stream:
            records = self._records(_Lines(stream, self._on_read))
            header = next(records, None)
            if header is None:
                if not self._problems:
                    self._problems.add(1, "-", "an empty file", f"the header {self._file.header}")
                return
            if not self._accept_header(header[1]):
                return
            positions = [
                (column, self.given.index(column.name) if column.name in self.given else None)
                for column in self._file.columns
            ]
            for line, fields in records:
                self.rows += 1
                values = self._values(line, fields, positions)
                if values is not None:
                    yield (line, *values)

    def _records(self, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of every record that is intact; blank lines are no records."""
        reader = csv.reader(iter(lines), strict=True)
        while True:
            line = lines.number + 1
            lines.flaw = None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                hint = next((v for k, v in _CSV_HINTS.items() if k in str(error)), "valid CSV")
                self._problems.add(line, "-", f"broken CSV ({error})", hint)
                return
            except _Unreadable as error:
                self._problems.add(lines.number, "-", *error.args)
                return
            if lines.flaw:
                self._problems.add(line, self._flawed_column(fields), lines.flaw, "UTF-8 text")
                self.rows += line > 1
                if line == 1:
                    return
            elif fields:
                yield line, fields

    def _flawed_column(self, fields: list[str]) -> str:
        for name, field in zip(self.given, fields, strict=False):
            if any(c == "\0" or "\udc80" <= c <= "\udcff" for c in field):
                return name
        return "-"

    def _accept_header(self, fields: list[str]) -> bool:
        self.given = [field.strip() for field in fields]
        known = {column.name: column for column in self._file.columns}
        missing = [
            name for name, column in known.items() if name not in self.given and not column.optional
        ]
        lacks = f" and no column {', '.join(missing)}" if missing else ""
        header = f"the header {self._file.header}"
        for position, name in enumerate(self.given):
            where = name if name.isascii() and name.isidentifier() else "-"
            if name not in known:
                found = f"an unknown column {quoted(name)}{lacks}"
                self._problems.add(1, where, found, header)
                return False
            if name in self.given[:position]:
                self._problems.add(1, where, "this column twice", header)
                return False
        if missing:
            self._problems.add(1, missing[0], "no such column", header)
        return not missing

    def _values(
        self, line: int, fields: list[str], positions: list[tuple[Column, int | None]]
    ) -> list[str | None] | None:
        if len(fields) != len(self.given):
            name = self.given[min(len(fields), len(self.given) - 1)]
            self._problems.add(
                line, name, f"{len(fields)} fields", f"{len(self.given)}, one for each column"
            )
            return None
        values: list[str | None] = []
        for column, position in positions:
            text = "" if position is None else fields[position].strip()
            if not text:
                if not (column.empty or position is None):
                    self._problems.add(line, column.name, "nothing", "a value")
                    return None
                values.append(None)
                continue
            if len(text) > column.longest:
                self._problems.add(
                    line, column.name, f"{len(text):,} characters", f"at most {column.longest:,}"
                )
                return None
            try:
                values.append(column.parse(text))
            except BadValue as error:
                self._problems.add(line, column.name, quoted(text), str(error))
                return None
        return values
