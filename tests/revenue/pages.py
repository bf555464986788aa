"""Reading a report's page as a reader does, and writing reports for tests."""

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

from sqlalchemy import Engine

from prepaid_pipeline.revenue.figures import Span
from prepaid_pipeline.revenue.report.content import versions
from prepaid_pipeline.revenue.report.formats import files
from prepaid_pipeline.settings.load import Settings, load
from prepaid_pipeline.storage import Store
from tests.revenue.history import RUN, publish

MARCH = date(2026, 3, 1)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Read(HTMLParser):
    """Collects the text and refuses tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open, self.tags = "", list[str](), list[tuple[str, dict[str, str | None]]]()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data}"

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def settings_of(root: Path | str, **env: str) -> Settings:
    return load({"PREPAID_REPORTS": str(root), "PREPAID_HOME": "/nowhere", **env})


def write(
    engine: Engine, root: Path, as_of: date, month: date = MARCH, settings: Settings | None = None
) -> Path:
    """Publish a month and write its files; the page's path."""
    settings = settings or settings_of(root)
    publish(engine, f"{month:%Y-%m}", f"{month:%Y-%m}", as_of)
    span = Span(month, month, as_of)
    versions.stage(engine, span, RUN)
    versions.publish(engine, span, RUN, settings.grace_days)
    return Path(files.write(engine, settings, Store.of(settings), month, month))
