"""The records of one import file, each value read as its column says."""

from collections.abc import Callable, Iterator
from pathlib import Path

from prepaid_pipeline.importer.csv_records import CsvRecords
from prepaid_pipeline.importer.files import Column, File
from prepaid_pipeline.importer.reports import Problems, quoted
from prepaid_pipeline.importer.values import BadValue

Record = tuple[int | str | None, ...]


class Reader:
    """The records of one file; what is wrong with it goes to ``problems``.

    ``rows`` counts the records read, ``given`` are the columns that the header has. ``on_read`` is
    told the bytes read so far, every 1,000 lines.
    """

    def __init__(
        self, path: Path, file: File, problems: Problems, on_read: Callable[[int], None]
    ) -> None:
        self.given: list[str] = []
        self._path = path
        self._file = file
        self._problems = problems
        self._on_read = on_read
        self._table: CsvRecords | None = None

    @property
    def rows(self) -> int:
        """Records read behind the header, good and bad."""
        return self._table.rows if self._table else 0

    def __iter__(self) -> Iterator[Record]:
        """Each good record: its line, then a value for every column of the file in order."""
        with self._path.open("rb") as stream:
            self._table = table = CsvRecords(stream, self._problems, self._on_read)
            records = iter(table)
            header = next(records, None)
            if header is None:
                if not self._problems:
                    self._problems.add(1, "-", "an empty file", f"the header {self._file.header}")
                return
            if not self._accept_header(header[1]):
                return
            table.columns = self.given
            positions = [
                (column, self.given.index(column.name) if column.name in self.given else None)
                for column in self._file.columns
            ]
            for line, fields in records:
                values = self._values(line, fields, positions)
                if values is not None:
                    yield (line, *values)

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
