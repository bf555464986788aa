"""The page as HTML: one file without script that asks for nothing from anywhere."""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.content.versions import Version
from prepaid_pipeline.revenue.report.page.blocks import Page
from prepaid_pipeline.revenue.report.page.charts import Chart

_TEMPLATES = Path(__file__).parent / "templates"
_SPACE = re.compile(r"\n\s*\n+")


def page(report: Page, formats: Sequence[tuple[str, str]]) -> str:
    """A month's page; ``formats`` are the names and files of the same in other formats."""
    template = _environment().get_template("report.html.j2")
    return _tight(template.render(page=report, say=report.say, formats=formats))


def index(latest: Sequence[Version], say: Language) -> str:
    """The list of all months; ``latest`` are their latest versions, newest first."""
    return _tight(_environment().get_template("index.html.j2").render(latest=latest, say=say))


def _tight(text: str) -> str:
    return _SPACE.sub("\n", text).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"width": _width, "kind": _kind, "drawing": _drawing}
    return environment


def _width(share: Decimal | str) -> str:
    """A part of 1 as the number of a percentage for styles, with at most one decimal."""
    return f"{max(Decimal(0), min(Decimal(share), Decimal(1))) * 100:.1f}"


def _kind(block: Any) -> str:
    return type(block).__name__


def _drawing(chart: Chart) -> Markup:
    """The drawing as part of the page; what it shows is read aloud instead of its single marks."""
    svg = re.sub(r' (xmlns(:xlink)?|version|class|role|aria-[a-z]+)="[^"]*"', "", chart.svg)
    svg = re.sub(r'(<svg)[^>]*?( viewBox="[^"]*")', r"\1\2", svg, count=1)
    attributes = f' role="img" aria-label="{escape(chart.alternative)}"'
    return Markup(svg.replace("<svg", f"<svg{attributes}", 1))
