"""The page in a real browser: it lays out, answers, prints, and is told to all."""

from __future__ import annotations

import gzip
import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import synthetic
from helpers_untrusted import hostile_run

from results.comparison.compare import compare
from results.comparison.page import comparison_page
from results.records.load import load
from results.report import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]

WIDTHS = (390, 1280)
MOST_BYTES = 5_000_000
"""Of a page: what the issue that asked for it allows."""

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def at(browser: Browser) -> Iterator[Open]:
    """Open a page; what it loads beside itself, or complains of, fails the test."""
    contexts, complaints = [], []

    def opened(
        path: Path, *, width: int = 1280, scheme: str = "light", scripts: bool = True
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )  # fmt: skip
        contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: loaded.append(request.url))
        loaded: list[str] = []
        page.goto(path.as_uri())
        assert [url for url in loaded if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    (page,) = write_report([folder], ["html"])
    assert page.stat().st_size < MOST_BYTES
    return page


@pytest.fixture(scope="module")
def compared(folder: Path) -> Path:
    slower = {name: replace(law, coefficient=1.4 * law.coefficient)
              for name, law in synthetic.SEVEN.items()}  # fmt: skip
    later = synthetic.write_run(folder.parent / "later", slower, seed=3, run="later")
    runs = load(folder), load(later)
    page = folder.parent / "compared.html"
    page.write_text(comparison_page(*runs, compare(*runs)))
    return page


def figures(page: Page) -> Any:
    """Return the figures, each unfolded and drawn: what comes near the window is."""
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for host in page.locator("[data-panels]:not(.view[hidden] *)").all():
        host.scroll_into_view_if_needed()
        host.locator(".cell svg").first.wait_for()
    return page.locator("figure")


# -- layout --------------------------------------------------------------------------------------

MEASURED = """() => {
  const plots = [...document.querySelectorAll("figure svg[viewBox]")].filter(
    s => s.getBoundingClientRect().width > 40);
  const text = plots.flatMap(s => [...s.querySelectorAll("text")]).filter(t => t.textContent);
  const sizes = text.map(t => parseFloat(getComputedStyle(t).fontSize) *
    t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width);
  const labels = "[aria-label$='tick label'],[id*=xtick]";
  const ticks = plots.flatMap(s => [...s.querySelectorAll(labels)].map(g =>
    [...g.querySelectorAll("text")].map(t => t.getBoundingClientRect())));
  const clash = ticks.filter(row => row.some((a, i) => row.some((b, j) => i < j &&
    a.left < b.right - 1 && b.left < a.right - 1 &&
    a.top < b.bottom - 2 && b.top < a.bottom - 2)));
  const boxes = [...document.querySelectorAll("body *")].filter(
    e => !e.closest(".scroll, .still, svg, details, pre, script, [hidden]"));
  const wide = boxes.filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  return {shown: plots.length, smallest: Math.min(...sizes), clash: clash.length,
    scroll: document.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 120))};
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scripts", [True, False])
def test_nothing_overflows_and_figures_can_be_read(
    at: Open, report: Path, width: int, scripts: bool
) -> None:
    page = at(report, width=width, scripts=scripts)
    if scripts:
        figures(page)
    measured = page.evaluate(MEASURED)
    assert measured["shown"] >= 5
    assert measured["scroll"] <= width
    assert measured["wide"] == []
    assert measured["clash"] == 0
    assert measured["smallest"] >= 7.5


def test_without_scripts_every_figure_and_table_stands_there(at: Open, report: Path) -> None:
    page = at(report, scripts=False)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.locator(".still").count() == 6
    assert all(still.is_visible() for still in page.locator(".still").all())
    assert all(table.is_visible() for table in page.locator("#methods table").all())
    assert page.locator("#case-answer .answer").count() == 2
    for hidden in ("#case-form", "#isolated", "[data-panels]", ".tabs"):
        assert not page.locator(hidden).first.is_visible()


def picture(page: Page) -> np.ndarray:
    pixels: np.ndarray = matplotlib.image.imread(io.BytesIO(page.screenshot()))[..., :3]
    return pixels


@pytest.mark.parametrize("scripts", [True, False])
def test_the_page_follows_light_and_dark(at: Open, report: Path, scripts: bool) -> None:
    for scheme, paper in (("light", 1.0), ("dark", 0.1)):
        page = at(report, scheme=scheme, scripts=scripts)
        page.locator("figure").first.scroll_into_view_if_needed()
        pixels = picture(page)
        assert pixels.mean() > 0.8 if scheme == "light" else pixels.mean() < 0.3
        assert (np.abs(pixels.mean(axis=2) - paper) > 0.4).mean() > 0.005  # there is ink


def test_it_prints_the_still_figures_and_what_is_folded(at: Open, report: Path) -> None:
    page = at(report)
    figures(page)
    page.emulate_media(media="print")
    assert all(still.is_visible() for still in page.locator(".still").all())
    assert all(table.is_visible() for table in page.locator("#methods table").all())
    for hidden in ("#case-form", "[data-panels]", ".filter"):
        assert not page.locator(hidden).first.is_visible()
    content = page.pdf()
    assert content.startswith(b"%PDF")
    assert 2 <= content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") <= 40


def tip(cell: Locator) -> str:
    """Return what stands beside the pointer; its lines are parted by zero-width spaces."""
    text = cell.locator("g[aria-label=tip]").text_content() or ""
    return text.replace("\u200b", " ").strip()


# -- figures that answer -------------------------------------------------------------------------


def test_the_pointer_shows_the_case_its_value_and_interval(at: Open, report: Path) -> None:
    page = at(report)
    figures(page)
    cell = page.locator("#figures figure .cell").first
    cell.scroll_into_view_if_needed()
    dots = cell.locator("g[aria-label=dot]").nth(1).locator("path").last
    dots.hover(force=True)
    told = tip(cell)
    assert re.match(r"(full|sdpa|longformer|bigbird|linformer|performer)", told)
    assert re.search(r"time per call: [\d.,]+ [mµn]?s \([\d.,]+ [mµn]?s–[\d.,]+ [mµn]?s\)", told)
    assert "sequence length" in told


def test_keys_go_through_the_points_and_a_live_region_tells_them(at: Open, report: Path) -> None:
    page = at(report)
    figures(page)
    cell = page.locator("#figures figure .cell").first
    told = page.locator("#figures figure output").first
    cell.focus()
    page.keyboard.press("ArrowRight")
    first = told.text_content() or ""
    page.keyboard.press("ArrowRight")
    second = told.text_content() or ""
    page.keyboard.press("ArrowDown")
    third = told.text_content() or ""
    assert first.split(",")[0] == second.split(",")[0] != third.split(",")[0]
    assert first != second
    assert tip(cell).startswith(third.split(",")[0])


def opacities(page: Page) -> dict[str, float]:
    """Return how strongly each series of the first panel is drawn, by its colour."""
    strokes = page.locator("#figures figure .cell").first.locator("g[aria-label=line]").all()
    return {
        str(s.get_attribute("stroke")): float(s.get_attribute("stroke-opacity") or 1)
        for s in strokes
    }


def test_a_click_isolates_a_backend_in_every_figure_and_table(at: Open, report: Path) -> None:
    page = at(report)
    figures(page)
    assert set(opacities(page).values()) == {1.0}
    page.locator('.legend button[data-backend="performer"]').first.click()
    own = page.locator('.legend button[data-backend="performer"]').all()
    assert all(b.get_attribute("aria-pressed") == "true" for b in own)
    assert len(own) >= 5
    assert sorted(opacities(page).values())[-2:] == [0.12, 1.0]
    rows = page.locator("#tables tbody").first.locator("tr")
    faded = {
        row.locator("th").text_content(): "faded" in (row.get_attribute("class") or "")
        for row in rows.all()
    }
    assert [name for name, is_faded in faded.items() if not is_faded] == ["performer"]
    assert "performer" in (page.locator("#isolated").text_content() or "")
    for cell in page.locator("figure .cell:visible").all():  # those that were out of sight too
        cell.scroll_into_view_if_needed()
        page.wait_for_function(
            "cell => new Set([...cell.querySelectorAll('g[aria-label=dot]')]"
            ".map(g => g.getAttribute('fill-opacity'))).has('0.12')",
            arg=cell.element_handle(),
        )
    page.keyboard.press("Escape")
    page.locator("#figures figure .cell").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => !document.querySelector('#figures .cell').querySelector('[fill-opacity=\"0.12\"]')"
    )
    assert set(opacities(page).values()) == {1.0}
    assert not page.locator("#isolated").is_visible()


def seconds(text: str) -> float:
    """Return a time as the page writes it, in seconds."""
    number, _, unit = text.partition(" ")
    return float(number.replace(",", "")) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "": 1.0}[unit]


def tick_texts(page: Page) -> list[str]:
    cell = page.locator("#figures figure .cell").first
    return cell.locator("g[aria-label='y-axis tick label'] text").all_text_contents()


def test_the_axes_can_be_made_linear_and_back(at: Open, report: Path) -> None:
    page = at(report)
    figures(page)
    before = tick_texts(page)
    button = page.get_by_role("button", name="linear y axis").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    numbers = list(map(seconds, tick_texts(page)))
    assert np.allclose(np.diff(numbers), np.diff(numbers)[0])
    button.click()
    assert tick_texts(page) == before


def test_a_failed_case_is_marked_where_it_would_have_been(at: Open, tmp_path: Path) -> None:
    laws = dict(synthetic.SEVEN)
    law = replace(laws["full"], fails={8192: ("out_of_memory", "asked for 4 GiB")})
    folder = synthetic.write_run(tmp_path / "run", {**laws, "full": law}, launches=2)
    page = at(*write_report([folder], ["html"]))
    figures(page)
    cell = page.locator("#figures figure .cell").first
    cell.focus()
    found = []
    for _ in range(80):
        page.keyboard.press("ArrowRight")
        found.append(page.locator("#figures figure output").first.text_content() or "")
    assert "full, out of memory: asked for 4 GiB, at 8,192" in found


# -- the first screen ----------------------------------------------------------------------------


def test_the_first_screen_holds_the_answer(at: Open, report: Path) -> None:
    page = at(report)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.locator("#view .cell svg").first.wait_for()
    boxes = {
        name: page.locator(name).first.bounding_box()
        for name in ("h1", ".measured", "#view", "#case-form", "#methods thead")
    }
    assert all(box and box["y"] + box["height"] <= 800 for box in boxes.values()), boxes
    assert page.locator("#methods tbody tr:visible").count() == 6  # of one mode


def test_on_a_phone_the_answer_comes_first_and_no_column_is_out_of_sight(
    at: Open, report: Path
) -> None:
    page = at(report, width=390)
    tops = [page.locator(name).first.bounding_box() for name in ("h1", "#methods", "#view")]
    assert [box["y"] for box in tops if box] == sorted(box["y"] for box in tops if box)
    heads = page.locator("#methods table").first.locator("thead th:visible")
    assert heads.count() == 3
    page.locator("[data-more]:visible").click()
    assert heads.count() == 7


def test_tabs_choose_mode_and_quantity_of_figure_and_table(at: Open, report: Path) -> None:
    page = at(report)
    label = page.locator("#view .view:visible .cell")
    assert "time per call" in (label.get_attribute("aria-label") or "")
    page.get_by_role("button", name="speed-up", exact=True).click()
    assert "speed-up over sdpa" in (label.get_attribute("aria-label") or "")
    page.get_by_role("button", name="training", exact=True).click()
    assert "Training" in (page.locator("#methods h2:visible").text_content() or "")
    assert page.locator("#methods table:visible").count() == 1


def test_your_case_gives_the_two_answers_that_fit(at: Open, report: Path) -> None:
    page = at(report)
    data = page.evaluate("JSON.parse(document.getElementById('case-data').textContent)")
    form, answers = page.locator("#case-form"), page.locator("#case-answer .answer")
    for place, of_mode in enumerate(data["modes"]):
        form.locator("[name=mode]").select_option(str(place))
        for point in of_mode["points"][::9]:
            form.locator("[name=tokens]").fill(str(point["n"]))
            known = sorted(c["memory_bytes"] for c in point["candidates"] if c["memory_bytes"])
            for limit in ("", str(int(known[0]) // 2**20 + 1)):
                form.locator("[name=memory]").fill(limit)
                for use in ("", "scratch"):
                    form.locator("[name=use]").select_option(use)
                    fit = [
                        c for c in point["candidates"]
                        if (not use or use in c["uses"])
                        and (not limit or (c["memory_bytes"] or 2**60) <= int(limit) * 2**20)
                    ]  # fmt: skip
                    exact = [c["name"] for c in fit if c["type"] == "exact"]
                    others = [c["name"] for c in fit if c["type"] != "exact"]
                    for card, names in zip(answers.all(), (exact, others), strict=True):
                        told = card.text_content() or ""
                        shown = card.locator("strong").all_text_contents()
                        assert [text.split(":")[0] for text in shown] == names[:1], told
    form.locator("[name=memory]").fill("")
    answers.first.locator("summary").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answers.first.locator(".copy").click()
    answers.first.get_by_text("Copied").wait_for()
    assert "import" in page.evaluate("navigator.clipboard.readText()")


def test_a_link_opens_the_part_that_it_leads_to(at: Open, report: Path) -> None:
    page = at(report)
    assert not page.locator("#trust").get_attribute("open")
    page.evaluate("location.hash = '#trust'")
    page.locator("#trust[open]").wait_for()


# -- tables and data -----------------------------------------------------------------------------


def test_a_heading_sorts_by_quantity_and_words_filter(at: Open, report: Path) -> None:
    page = at(report)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    table = page.locator("#cases table").first
    column = table.locator("thead th").all_text_contents().index("time") + 1

    def times() -> list[float]:
        cells = table.locator(f"tbody tr:not([hidden]) td:nth-child({column})")
        texts = cells.evaluate_all("cells => cells.map(c => c.firstChild?.textContent ?? '')")
        return [seconds(text) for text in texts if text[:1].isdigit()]

    usual = times()
    assert usual != sorted(usual)
    head = table.locator("thead th button").nth(column - 1)
    head.click()
    assert times() == sorted(usual)
    head.click()
    assert times() == sorted(usual, reverse=True)
    head.click()
    assert times() == usual
    box = page.locator("#cases input[type=search]").first
    box.fill("performer training")
    kept = table.locator("tbody tr:not([hidden])").all()
    assert 0 < len(kept) < len(usual)
    assert all("performer" in (row.text_content() or "") for row in kept)


@pytest.mark.parametrize("scripts", [True, False])
def test_the_data_can_be_had_as_csv(
    at: Open, folder: Path, report: Path, tmp_path: Path, scripts: bool
) -> None:
    page = at(report, scripts=scripts)
    page.locator("#data > summary").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    name = download.value.suggested_filename
    target = tmp_path / name
    download.value.save_as(target)
    assert name == ("attnbench.csv" if scripts else "attnbench.csv.gz")
    content = target.read_bytes() if scripts else gzip.decompress(target.read_bytes())
    table = pd.read_csv(io.BytesIO(content), keep_default_na=False)
    frame = load(folder).frame
    assert len(table) == len(frame)
    values = pd.to_numeric(table["value"], errors="coerce")
    assert np.allclose(values, frame["value"], equal_nan=True)


# -- for everybody -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "scheme", "scripts"),
    [(390, "dark", True), (1280, "light", False)],
)
def test_axe_finds_nothing(at: Open, report: Path, width: int, scheme: str, scripts: bool) -> None:
    if scripts:
        page = at(report, width=width, scheme=scheme)
        figures(page)
        page.locator(".legend button").first.click()
    else:  # axe is a script itself: only the page's own are taken out
        bare = report.with_name("bare.html")
        own = re.sub(r"<script>.*?</script>", "", report.read_text(), flags=re.DOTALL)
        bare.write_text(own)
        page = at(bare, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_comparison_is_a_page_of_the_same_kind(at: Open, compared: Path) -> None:
    assert at(compared, width=1280).evaluate("document.documentElement.scrollWidth") <= 1280
    page = at(compared, width=390, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert figures(page).count() >= 3
    page.locator(".legend button", has_text="longformer").first.click()
    assert page.locator("#isolated").is_visible()
    assert page.locator("tr.chosen").count() >= 12
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_figures_text_alternative_says_what_it_shows(at: Open, report: Path) -> None:
    page = at(report, scripts=False)
    labels = [svg.get_attribute("aria-label") or "" for svg in page.locator(".still > svg").all()]
    assert all(re.search(r"performer [\d.,e-]+ ?\S* at \d", label) for label in labels), labels
    page = at(report)
    figures(page)
    cells = [c.get_attribute("aria-label") or "" for c in page.locator("#figures .cell").all()]
    assert all("performer" in label for label in cells)


# -- a stranger's records ------------------------------------------------------------------------


def test_a_strangers_script_does_not_run(at: Open, tmp_path: Path) -> None:
    (path,) = write_report([hostile_run(tmp_path / "run")], ["html"])
    page = at(path)
    title = page.title()
    assert title.startswith("attnbench: ")
    assert title != "run"
    figures(page)
    touched = page.evaluate(TOUCHING)
    assert touched["foreign"] == []
    assert touched["scripts"] == 4
    assert touched["touched"] > 100
    for button in page.locator(".legend button:visible").all()[:6]:
        button.click()
    assert page.title() == title


TOUCHING = """() => {
  const all = [...document.querySelectorAll("*")];
  for (const e of all) {
    if (e.tagName === "DETAILS") e.open = true;
    for (const kind of ["mouseover", "focus", "error", "load"])
      e.dispatchEvent(new Event(kind, {bubbles: false}));
  }
  const scripts = all.filter(e => e.tagName === "SCRIPT" && e.type !== "application/json");
  const foreign = all.filter(e => ["IMG", "IFRAME", "OBJECT", "EMBED"].includes(
    e.tagName.toUpperCase()) || [...e.attributes].some(a => a.name.startsWith("on") ||
    /^\\s*(javascript|data):/i.test(a.value) && e.id !== "download" &&
    !["title", "aria-label", "data-backend"].includes(a.name))).map(
    e => e.outerHTML.slice(0, 200));
  return {foreign, scripts: scripts.length, touched: all.length};
}"""
