"""What an import tells its caller: one report per file, one message per bad line."""

from dataclasses import dataclass, field
from typing import Literal

# A file with a million bad lines needs one correction, not a million messages.
MAX_MESSAGES = 1000
_LONGEST_QUOTE = 40


@dataclass
class FileReport:
    """The result of importing one file.

    ``rows`` were read; ``added`` and ``changed`` of them made a difference in the database.
    ``differences`` are known terms that the file has otherwise, and erased customers; ``errors``
    are ``file:line:column: what was found, what was expected``.
    """

    file: str
    status: Literal["imported", "unchanged", "refused", "skipped"]
    rows: int = 0
    added: int = 0
    changed: int = 0
    differences: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Problems:
    """The bad lines of one file. The first problem of a line is the one that is told."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._messages: dict[int, str] = {}
        self._lines: set[int] = set()

    def add(self, line: int, column: str, found: str, expected: str) -> None:
        """Note a bad line (1 is the header)."""
        if line not in self._lines and len(self._messages) < MAX_MESSAGES:
            message = f"{self._filename}:{line}:{column}: found {found}, expected {expected}"
            self._messages[line] = message
        self._lines.add(line)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def messages(self) -> list[str]:
        """All messages by line; beyond 1,000 only how many more lines are bad."""
        messages = [self._messages[line] for line in sorted(self._messages)]
        if more := len(self._lines) - len(messages):
            messages.append(f"{self._filename}: {more:,} more lines are bad")
        return messages


def quoted(text: str | None) -> str:
    """A value as it stands in a message: in quotes, cut short, control characters spelled out."""
    if text is None or text == "":
        return "nothing"
    if len(text) > _LONGEST_QUOTE:
        return f"{text[:_LONGEST_QUOTE]!r}…"
    return repr(text)
