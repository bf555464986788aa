"""The page as PDF: Typst sets it, with fonts of its own, tagged for screen readers (PDF/UA-1)."""

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from prepaid_pipeline.language.catalogue import Language
from prepaid_pipeline.revenue.report.page.blocks import (
    Block,
    Figure,
    Folded,
    Headline,
    Page,
    Paragraph,
    Section,
    Table,
    Terms,
    Tile,
)

_TEMPLATE = Path(__file__).parent / "templates" / "report.typ"
# Of the fonts that come with Typst the one that is made to be read.
_FONT = "Libertinus Serif"


def page(report: Page, published_at: str) -> bytes:
    """The same page always gives the same bytes; ``published_at`` is the date in the file."""
    import typst

    moment = int(datetime.fromisoformat(published_at).timestamp())
    written: bytes = typst.compile(
        str(_TEMPLATE),
        format="pdf",
        sys_inputs={"page": json.dumps(_page(report), ensure_ascii=False)},
        pdf_standards=["ua-1"],
        timestamp=moment,
    )
    return written


def _page(report: Page) -> dict[str, Any]:
    locale = report.say.locale
    return {
        "title": report.title,
        "lang": locale.language,
        "region": locale.territory,
        "kicker": report.kicker,
        "month": report.month,
        "badge": report.badge,
        "closed": report.is_closed,
        "measured": report.measured,
        "notice": report.notice,
        "sections": [_section(section, report.say) for section in report.sections],
        "footer": report.footer,
    }


def _section(section: Section, say: Language) -> dict[str, Any]:
    is_part = section.currency is not None and not section.name.startswith("headline-")
    blocks = [written for block in section.blocks for written in _blocks(block, section, say)]
    return {"title": section.title, "level": 3 if is_part else 2, "blocks": blocks}


def _blocks(block: Block, section: Section, say: Language) -> list[dict[str, Any]]:
    match block:
        case Headline():
            return [
                {
                    "kind": "headline",
                    "half": False,
                    "sentence": block.sentence,
                    "large": [_tile(tile) for tile in block.large],
                    "small": [_tile(tile) for tile in block.small],
                    "split": block.split
                    and {
                        "parts": [{"share": float(s), "kind": k} for _, s, k in block.split.parts]
                    },
                }
            ]
        case Figure():
            drawn = {
                "kind": "figure",
                "half": True,
                "title": block.chart.title,
                "svg": block.chart.svg.replace(
                    'font-family="sans-serif"', f'font-family="{_FONT}"'
                ),
                "alternative": block.chart.alternative,
            }
            return [drawn, *([_table(block.table, say, half=True)] if block.open else [])]
        case Table():
            return [_table(block, say, half=section.halves)]
        case Folded():
            return []  # as in a printed page: paper shows what everybody reads
        case Terms():
            entries = [{"term": term, "text": text} for term, text in block.entries]
            return [{"kind": "terms", "half": False, "entries": entries}]
        case Paragraph():
            return [
                {
                    "kind": "paragraph",
                    "half": section.halves,
                    "text": block.text,
                    "tone": block.tone,
                }
            ]


def _tile(tile: Tile) -> dict[str, str]:
    return {
        "label": tile.label,
        "value": tile.value,
        "unit": tile.unit,
        "note": tile.note,
        "kind": tile.kind,
    }


def _table(table: Table, say: Language, *, half: bool) -> dict[str, Any]:
    rows = []
    for place, values in enumerate(table.rows):
        bars = [
            min(1.0, float(Decimal(str(value))))
            if column.kind == "share" and value is not None
            else None
            for value, column in zip(values, table.columns, strict=True)
        ]
        cells = [
            {"text": text, "bar": bar}
            for text, bar in zip(table.shown(place, say), bars, strict=True)
        ]
        rows.append({"role": table.role(place), "cells": cells})
    columns = [
        {"title": table.heading(column, say), "number": column.is_number}
        for column in table.columns
    ]
    shown = {"title": table.title(say), "columns": columns, "rows": rows, "note": table.note}
    return {"kind": "table", "half": half, "table": shown}
