"""Take the README's pictures of the report again: ``python docs/build_screenshots.py``.

They show the first screen of the report of the shipped reference results in a browser, in light
and dark, with a value under the pointer. Needs playwright (the extra `test`) and a chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from results.report import write_report

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "results" / "reference" / "epyc-2-cores" / "speed"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Write ``docs/figures/report-light.png`` and ``report-dark.png``."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit(f"expected one of {', '.join(NAMES)} on PATH, found none")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        (page_file,) = write_report([RECORDS], ["html"], folder)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": 1280, "height": 800},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(page_file.as_uri())
            cell = page.locator("#view .cell").first
            cell.focus()
            for _ in range(4):
                page.keyboard.press("ArrowRight")
            page.evaluate("document.activeElement.style.outline = 'none'; scrollTo(0, 0)")
            page.screenshot(path=ROOT / "docs" / "figures" / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
