"""XML from others: read piece by piece, and nothing but what is in the file.

Payment messages have no document type (ISO 20022 is XML Schema throughout), so a file with one is
refused before a word of it is read: no entity is declared, expanded or fetched.
"""

from collections.abc import Callable, Iterator
from io import SEEK_SET
from typing import BinaryIO

from lxml import etree

from prepaid_pipeline.billing.providers.records import Fault

_CHUNK = 1 << 16


class _RootFound(Exception):  # noqa: N818
    """The prolog is over. Argument: the root element's tag."""


class _Prolog:
    """Takes what comes before the root element (lxml's parser target)."""

    def doctype(self, *_: object) -> None:
        raise Fault("-", "a document type (DOCTYPE)", "a payment message, which has none")

    def start(self, tag: str | bytes, *_: object) -> None:
        raise _RootFound(tag)

    def end(self, *_: object) -> None:
        """Never reached, nor is data: the root's start ends the reading."""

    def data(self, *_: object) -> None: ...

    def comment(self, *_: object) -> None: ...

    def close(self) -> None:
        """The file ended in its prolog; the parser says so itself."""


class _Counted:
    """A stream that tells how much of it was read."""

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_read = on_read
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        self._on_read(self._read)
        return data


def root_of(stream: BinaryIO) -> str:
    """The tag of the root element; the stream is back at its start then.

    Raises Fault for a document type, and lxml's XMLSyntaxError.
    """
    parser = etree.XMLParser(
        target=_Prolog(), resolve_entities=False, load_dtd=False, no_network=True
    )
    try:
        while chunk := stream.read(_CHUNK):
            parser.feed(chunk)
        parser.close()
    except _RootFound as found:
        stream.seek(0, SEEK_SET)
        return str(found.args[0])
    raise Fault("-", "an empty file", "an XML document")


def elements(
    stream: BinaryIO, names: tuple[str, ...], on_read: Callable[[int], None]
) -> Iterator[tuple[str, etree._Element]]:
    """Start and end of every element of these names, in any namespace, in the order of the file."""
    yield from etree.iterparse(
        _Counted(stream, on_read),
        events=("start", "end"),
        tag=tuple(f"{{*}}{name}" for name in names),
        remove_comments=True,
        remove_pis=True,
        # Not False: what is refused then ends the file without an error.
        resolve_entities="internal",
        load_dtd=False,
        no_network=True,
        huge_tree=False,
    )


def forget(element: etree._Element) -> None:
    """Free the memory of an element and of what comes before it."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


class Fields:
    """What stands in an element, by paths of names without namespaces: ``Refs/EndToEndId``.

    One walk over the element: looking each path up in it takes ten times as long.
    """

    def __init__(self, element: etree._Element) -> None:
        self._found: dict[str, list[etree._Element]] = {}
        waiting = [("", element)]
        while waiting:
            path, parent = waiting.pop()
            for child in parent:
                if isinstance(child.tag, str):
                    where = path + child.tag.rpartition("}")[2]
                    self._found.setdefault(where, []).append(child)
                    if len(child):
                        waiting.append((f"{where}/", child))

    def first(self, path: str) -> etree._Element | None:
        """The first element at a path."""
        return self._found[path][0] if path in self._found else None

    def texts(self, path: str) -> list[str]:
        """The texts at a path, without blanks around them and without empty ones."""
        if path not in self._found:
            return []
        texts = ((element.text or "").strip() for element in self._found[path])
        return [text for text in texts if text]

    def text(self, *paths: str) -> str:
        """The first text at one of the paths; empty where there is none."""
        for path in paths:
            if found := self.texts(path):
                return found[0]
        return ""
