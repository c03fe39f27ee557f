"""The page in a real browser: it lays out, in light and dark, on a desk and on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import synthetic
from test_untrusted import hostile_run

from results.report import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--allow-file-access-from-files", "--virtual-time-budget=2000",
)  # fmt: skip


def chromium(profile: Path, page: Path, *flags: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic.write_run(tmp_path_factory.mktemp("run"))
    return write_report([folder], ["html"])[0]


# Shows the report at the width of a phone (a window is never that narrow) and measures it.
FRAME = """<!DOCTYPE html><body style="margin:0"><iframe id="f" src="{name}"
style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.onload = () => {{
  const d = frame.contentDocument, w = frame.contentWindow;
  const shown = [...d.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 0);
  const text = shown.flatMap(s => [...s.querySelectorAll("text")]);
  const sizes = text.map(t => parseFloat(w.getComputedStyle(t).fontSize) *
    t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width);
  const outside = shown.filter(s => {{ const b = s.getBoundingClientRect();
    return [...s.querySelectorAll("text")].some(t => {{ const r = t.getBoundingClientRect();
      return r.left < b.left - 2 || r.right > b.right + 2; }}); }});
  const boxes = [...d.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg, details"));
  const wide = boxes.filter(e => e.getBoundingClientRect().right > {width} + 1);
  const ticks = shown.map(s => [...s.querySelectorAll("[id*=xtick] text")]
    .map(t => t.getBoundingClientRect()));
  const clash = ticks.filter(row => row.some((a, i) => row.some((b, j) => i < j &&
    Math.abs(a.top - b.top) < 2 && a.left < b.right && b.left < a.right)));
  document.getElementById("out").textContent = JSON.stringify({{
    shown: shown.length, smallest: Math.min(...sizes), outside: outside.length,
    scroll: d.documentElement.scrollWidth, wide: wide.length, clash: clash.length,
    ink: w.getComputedStyle(d.body).color, paper: w.getComputedStyle(d.body).backgroundColor}});
}};
</script>"""


@pytest.mark.parametrize(("width", "least"), [(375, 7.5), (1280, 9.0)])
def test_nothing_overflows_and_figures_can_be_read(
    report: Path, tmp_path: Path, width: int, least: float
) -> None:
    frame = report.parent / f"frame-{width}.html"
    frame.write_text(FRAME.format(name=report.name, width=width))
    dom = chromium(tmp_path / "profile", frame, "--dump-dom", "--window-size=1400,1000")
    found = re.search(r'<pre id="out">(\{.*?\})</pre>', dom)
    assert found, dom[-500:]
    measured = dict(re.findall(r'"(\w+)":"?([^",}]+)', html.unescape(found.group(1))))
    assert int(measured["shown"]) == 5  # one layout of each figure
    assert int(measured["scroll"]) <= width
    assert int(measured["wide"]) == 0
    assert int(measured["outside"]) == 0
    assert int(measured["clash"]) == 0
    assert float(measured["smallest"]) >= least


def screenshot(report: Path, tmp_path: Path, name: str, *flags: str) -> np.ndarray:
    target = tmp_path / f"{name}.png"
    chromium(tmp_path / name, report, f"--screenshot={target}", "--window-size=1280,2400", *flags)
    pixels: np.ndarray = matplotlib.image.imread(target)[..., :3]
    return pixels


def test_the_page_follows_light_and_dark(report: Path, tmp_path: Path) -> None:
    light = screenshot(report, tmp_path, "light", "--blink-settings=preferredColorScheme=1")
    dark = screenshot(report, tmp_path, "dark", "--blink-settings=preferredColorScheme=0")
    assert light.shape == dark.shape
    assert light.mean() > 0.85
    assert dark.mean() < 0.3
    # The lower part holds figures: there is ink of its own on both.
    for pixels, paper in ((light, 1.0), (dark, 0.1)):
        figures = pixels[1400:]
        assert (np.abs(figures.mean(axis=2) - paper) > 0.4).mean() > 0.005


def test_a_strangers_script_does_not_run(tmp_path: Path) -> None:
    folder = hostile_run(tmp_path / "run")
    (page,) = write_report([folder], ["html"])
    # A page that holds it opens everything and points at everything, as a reader may.
    around = tmp_path / "run" / "around.html"
    around.write_text(TOUCHING.format(name=page.name))
    dom = chromium(tmp_path / "profile", around, "--dump-dom")
    found = re.search(r'<pre id="out">(\{.*?\})</pre>', dom)
    assert found, dom[-500:]
    told = json.loads(html.unescape(found.group(1)))
    assert told["title"].startswith("attnbench report")
    assert told["title"] != "run"
    assert told["foreign"] == []
    assert told["touched"] > 100


TOUCHING = """<!DOCTYPE html><body><iframe id="f" src="{name}"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.onload = () => {{
  const d = frame.contentDocument, all = [...d.querySelectorAll("*")];
  for (const e of all) {{
    if (e.tagName === "DETAILS") e.open = true;
    for (const kind of ["mouseover", "click", "focus", "error", "load"])
      e.dispatchEvent(new Event(kind, {{bubbles: false}}));
  }}
  const foreign = all.filter(e => ["SCRIPT", "IMG", "IFRAME", "OBJECT", "EMBED"].includes(
    e.tagName.toUpperCase()) || [...e.attributes].some(a => a.name.startsWith("on") ||
    /^\\s*(javascript|data):/i.test(a.value) && !["title", "aria-label"].includes(a.name))).map(
    e => e.tagName);
  document.getElementById("out").textContent =
    JSON.stringify({{title: d.title, foreign, touched: all.length}});
}};
</script>"""


def test_it_prints(report: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    chromium(tmp_path / "profile", report, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") <= 30
