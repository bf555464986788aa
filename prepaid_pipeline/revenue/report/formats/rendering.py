"""One document in every format."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.content.document import as_json
from prepaid_pipeline.revenue.report.formats import html, pdf, spreadsheets
from prepaid_pipeline.revenue.report.page import build
from prepaid_pipeline.revenue.report.page.blocks import Page
from prepaid_pipeline.storage import ENDINGS

# What the page links to as the same in other formats.
_NAMES = {"pdf": "PDF", "xlsx": "Excel", "csv": "CSV", "json": "JSON"}


class Rendering:
    """A document in a language; each format is made when it is asked for."""

    def __init__(self, document: Mapping[str, Any], say: Language) -> None:
        self.document = {**document, "language": say.tag}
        self._say = say
        self._made: dict[str, bytes] = {}

    @cached_property
    def _page(self) -> Page:
        return build.build(self.document, self._say)

    def as_(self, kind: str) -> bytes:
        """The file of a kind of ``store.ENDINGS``: the same document gives the same bytes."""
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]

    def _make(self, kind: str) -> bytes:
        match kind:
            case "json":
                return as_json(self.document).encode()
            case "html":
                stem = self._page.file_stem
                others = [(name, f"{stem}.{ENDINGS[key]}") for key, name in _NAMES.items()]
                return html.page(self._page, others).encode()
            case "pdf":
                return pdf.page(self._page, self.document["published_at"])
            case "xlsx":
                return spreadsheets.as_xlsx(self.document, self._say)
            case "csv":
                return spreadsheets.as_csv(self.document)
        raise ValueError(kind)
