"""A real browser on the real desk: Debian's chromium, driven by Playwright, with axe-core."""

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import axe_playwright_python
import pytest
import uvicorn
from playwright.sync_api import Page, Response, sync_playwright
from starlette.applications import Starlette

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_IMAGES = Path(__file__).parents[2] / "docs" / "images"
# Made anew with DESK_PICTURES=1 in the environment: each run would give other dates.
_PICTURES = os.environ.get("DESK_PICTURES") == "1"
WIDTHS, HEIGHTS = {"wide": 1280, "narrow": 390}, {"wide": 800, "narrow": 844}
_AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
_RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    # What is right needs no explaining, and there is nothing to fetch: a third of the time.
    "resultTypes": ["violations"],
    "preload": False,
    "elementRef": False,
}
# On a phone the cells of a list have their labels on the left: texts that stand below those.
_UNDER_LABELS = """() => {
  const found = [];
  for (const cell of document.querySelectorAll('.list td[data-label]')) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const range = document.createRange();
      range.selectNodeContents(texts.currentNode);
      const lines = [...range.getClientRects()].filter((line) => line.width > 0);
      if (lines.some((line) => line.left < cell.getBoundingClientRect().left + 100))
        found.push(`${cell.dataset.label}: ${texts.currentNode.data.trim()}`);
    }
  }
  return found;
}"""
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium (Debian, Ubuntu: apt-get install chromium)"
)


@contextmanager
def served(app: Starlette, port: int) -> Iterator[str]:
    """The application on a port of this machine, by the server that it has in production."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    stop_by = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < stop_by
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


class Seen:
    """A person at a browser window. Keeps what left the machine and what the console said."""

    def __init__(self, page: Page, home: str) -> None:
        self.page, self.home = page, home
        self.width = "wide"
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.sizes: dict[str, int] = {}
        page.on("request", lambda request: self._note(request.url))
        page.on("response", self._measure)
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, url: str) -> None:
        if not url.startswith((self.home, "data:")):
            self.elsewhere.append(url)

    def _measure(self, answer: Response) -> None:
        size = int(answer.headers.get("content-length", 0))
        self.sizes[answer.url] = max(size, self.sizes.get(answer.url, 0))
        # What the console of a browser says of a faulty answer is not always said.
        if answer.status >= 400:
            self.complaints.append(f"{answer.status} {answer.url}")

    def open(self, path: str) -> None:
        self.page.goto(self.home + path)

    def on_a(self, width: str) -> None:
        """Go on in a window as wide as that."""
        self.width = width
        self.page.set_viewport_size({"width": WIDTHS[width], "height": HEIGHTS[width]})

    def keys(self, *names: str) -> None:
        for name in names:
            self.page.keyboard.press(name)

    def tab_to(self, text: str, most: int = 200) -> None:
        """Go with the tabulator key to the link, field or button that is called so."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            name = self.page.evaluate(
                "() => { const e = document.activeElement; const l = e.labels && e.labels[0];"
                " return ((l ? l.innerText : '') || e.getAttribute('aria-label') || e.innerText"
                " || e.value || '').trim(); }"
            )
            if name.startswith(text):
                return
        raise AssertionError(f"no {text!r} to be reached by the tabulator key")

    def follow(self, link: str | re.Pattern[str]) -> None:
        """Press Enter on the first link of that name, and wait for the page."""
        with self.page.expect_navigation():
            self.page.get_by_role("link", name=link).first.press("Enter")

    def findings(self, colours: bool = True) -> list[str]:
        """What axe-core finds on the page, WCAG 2.2 level A and AA."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_AXE)
        rules = _RULES | {"rules": {"color-contrast": {"enabled": colours}}}
        result = self.page.evaluate("(rules) => axe.run(document, rules)", rules)
        return [
            f"{found['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
            for found in result["violations"]
            for node in found["nodes"]
        ]

    def check(self, name: str, *pictures: str) -> None:
        """No finding and nothing to scroll sideways, wide and narrow; pictures for the docs."""
        before = self.width
        for width_name, width in WIDTHS.items():
            self.on_a(width_name)
            # Half of the time goes into the colours, which are the same at any width.
            assert self.findings(colours=width_name == "wide") == [], (name, width_name)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (name, width, wide)
            if width_name == "narrow":
                assert self.page.evaluate(_UNDER_LABELS) == [], name
            if _PICTURES and width_name in pictures:
                file = f"desk_{name.replace(' ', '_')}_{width_name}.png"
                self.page.screenshot(path=_IMAGES / file)
        self.on_a(before)


@contextmanager
def window(home: str) -> Iterator[Seen]:
    """A new browser window on the desk, without cookies."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
        seen = Seen(context.new_page(), home)
        try:
            yield seen
        finally:
            browser.close()
