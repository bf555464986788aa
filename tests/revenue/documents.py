"""A report's document with everything in it, by hand: two currencies, late data, a warning."""

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "files" / "report_2026-10.json"


def full() -> dict[str, Any]:
    """The second version of October 2026."""
    document: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return document
