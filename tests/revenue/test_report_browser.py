"""The report in a real browser: on a telephone, on a screen, printed; with axe-core."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdf
import pytest

from prepaid_pipeline.language import catalogue
from prepaid_pipeline.revenue.report.formats.rendering import Rendering
from tests.desk.chromium import WIDTHS, Seen, needs_chromium, window
from tests.revenue.documents import full

_IMAGES = Path(__file__).parents[2] / "docs" / "images"
# Made anew with REPORT_PICTURES=1 in the environment.
_PICTURES = os.environ.get("REPORT_PICTURES") == "1"
LARGEST = 500_000
# From a telephone to a desk; everything that is folded away is open.
_ROOM = (390, 600, 768, 1024, 1280, 1920)
_CUT_OFF = """() => [...document.querySelectorAll('.wide')]
  .filter((table) => table.scrollWidth > table.clientWidth)
  .map((table) => table.getAttribute('aria-label'))"""

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed month of a single currency; the others are made by whoever reads them."""
    root = tmp_path_factory.mktemp("reports")
    document = full()
    only = {**document, "currencies": document["currencies"][:1], "converted": None}
    only |= {"course": document["course"][:1], "changes": None, "version": 1}
    make(root, "single", only, "en_GB")
    return root


def make(root: Path, name: str, document: dict[str, Any], locale: str) -> None:
    made = Rendering(document, catalogue.of(locale, root))
    (root / f"{name}.html").write_bytes(made.as_("html"))


@pytest.fixture(scope="module")
def seen(folder: Path) -> Iterator[Seen]:
    with window(folder.as_uri()) as browser:
        yield browser


@pytest.mark.long
@pytest.mark.parametrize(("name", "locale"), [("full", "en_GB"), ("german", "de_DE")])
def test_everybody_can_read_one_with_everything_in_it(
    seen: Seen, folder: Path, name: str, locale: str
) -> None:
    make(folder, name, full(), locale)
    everybody_can_read(seen, folder, name)


def test_everybody_can_read_it(seen: Seen, folder: Path) -> None:
    everybody_can_read(seen, folder, "single")


def everybody_can_read(seen: Seen, folder: Path, name: str) -> None:
    """No finding of axe-core (WCAG 2.2 A and AA), nothing to scroll sideways, nothing fetched."""
    seen.open(f"/{name}.html")
    for width_name, width in WIDTHS.items():
        seen.page.set_viewport_size({"width": width, "height": 844})
        assert seen.findings() == [], width_name
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        if _PICTURES and name == "single":
            seen.page.screenshot(path=_IMAGES / f"report_{width_name}.png")
    seen.page.set_viewport_size({"width": WIDTHS["wide"], "height": 844})
    # What is folded away is read too.
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert seen.findings() == []
    for width in _ROOM:
        seen.page.set_viewport_size({"width": width, "height": 844})
        assert seen.page.evaluate(_CUT_OFF) == [], width
    assert (seen.elsewhere, seen.complaints) == ([], [])
    assert (folder / f"{name}.html").stat().st_size < LARGEST


def test_the_answer_is_on_the_first_screen(seen: Seen) -> None:
    """MRR, its change, new plans and renewals, without scrolling."""
    seen.open("/single.html")
    for width, height in ((1280, 800), (390, 844)):
        seen.page.set_viewport_size({"width": width, "height": height})
        for text in ("11,902.00", "+313.00 (+2.7%)", "New plans", "Renewals"):
            box = seen.page.locator("main .tiles").first.get_by_text(text).first.bounding_box()
            assert box is not None, text
            assert box["y"] + box["height"] <= height, (text, width)


def test_it_is_read_by_keyboard(seen: Seen) -> None:
    seen.page.set_viewport_size({"width": 1280, "height": 800})
    seen.open("/single.html")
    seen.tab_to("The figures behind the chart")
    seen.keys("Enter")
    table = seen.page.get_by_role("region", name="Thirteen months, USD")
    assert table.get_by_role("row", name="October 2026").is_visible()


def test_it_is_printed_on_few_sheets(seen: Seen) -> None:
    seen.open("/single.html")
    printed = pypdf.PdfReader(io.BytesIO(seen.page.pdf(prefer_css_page_size=True)))
    assert len(printed.pages) <= 4
    first = " ".join(printed.pages[0].extract_text().split())
    assert "11,902.00" in first
    assert "MRR movements" in first
    text = " ".join(" ".join(page.extract_text() for page in printed.pages).split())
    assert "What the figures mean" in text
    assert "All months" not in text, "links lead nowhere on paper"


@pytest.mark.skipif(not _PICTURES, reason="REPORT_PICTURES=1 makes the picture of the PDF")
def test_a_picture_of_the_paper(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typst

    whole = typst.compile

    def first_page(*args: object, **options: object) -> bytes:
        pages = whole(*args, **{**options, "format": "png", "ppi": 80.0, "pdf_standards": []})
        return pages[0] if isinstance(pages, list) else pages

    monkeypatch.setattr(typst, "compile", first_page)
    made = Rendering(full(), catalogue.of("en_GB", folder)).as_("pdf")
    (_IMAGES / "report_paper.png").write_bytes(made)
