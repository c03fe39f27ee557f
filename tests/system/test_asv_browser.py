"""asv's own site of an export, in a real browser: two machines side by side, words, units."""

from __future__ import annotations

import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import synthetic

from results.export.asv import export_asv
from results.records.load import load

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / ".asv" / "page" / "node_modules"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
    pytest.mark.skipif(not SCRIPTS.exists(), reason="asv's page loads scripts: make asv-page"),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=6000", "--window-size=1280,900",
)  # fmt: skip

# asv's page takes these from content delivery networks; here they come from this machine.
FROM_NPM = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
    "jquery.flot.min.js": "jquery.flot/jquery.flot.js",
    "jquery.flot.time.min.js": "jquery.flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "jquery.flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "jquery.flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
}

LISTEN = """<script>
window.faults = [];
addEventListener("error", e => faults.push(`${e.message || e.target.src || e.target.href}`), true);
addEventListener("unhandledrejection", e => faults.push(`${e.reason}`));
</script>"""

# Says what a reader sees: panels with their buttons, curves with their ink, axes, rows.
TELL = """<script>
function tell() {
  const text = e => e.textContent.trim();
  const panels = {};
  for (const p of document.querySelectorAll(".panel")) if (p.offsetParent)
    panels[text(p.querySelector(".panel-heading"))] =
      [...p.querySelectorAll(".btn")].map(b => [text(b), b.classList.contains("active")]);
  const plot = $("#main-graph").data("plot");
  const curves = [], axes = {};
  const ticks = [...document.querySelectorAll("#main-graph .flot-y-axis div")].map(text);
  if (plot) {
    const canvas = plot.getCanvas();
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const ink = {};
    for (let i = 0; i < pixels.length; i += 4) {
      const c = `rgb(${pixels[i]},${pixels[i + 1]},${pixels[i + 2]})`;
      ink[c] = (ink[c] || 0) + 1; }
    const own = c => { const x = document.createElement("i"); x.style.color = c;
      document.body.append(x); return getComputedStyle(x).color.replace(/ /g, ""); };
    for (const s of plot.getData()) curves.push({label: s.label,
      points: s.data.filter(p => p[1] !== null), ink: ink[own(s.color)] || 0});
    axes.x = plot.getXAxes()[0].options.axisLabel;
    axes.y = plot.getYAxes()[0].options.axisLabel;
  }
  const rows = [...document.querySelectorAll("#summarylist-body tbody tr")].map(r =>
    [...r.querySelectorAll("td")].map(d => d.textContent.replace(/\\s+/g, " ").trim()));
  const grid = [...document.querySelectorAll(".benchmark-text")].map(text);
  const groups = [...document.querySelectorAll(".benchmark-group h1")].map(text);
  const out = document.createElement("pre"); out.id = "told";
  out.textContent = JSON.stringify({faults, panels, curves, axes, ticks, rows, grid, groups,
    error: $("#error").is(":visible") ? text($("#error-message")[0]) : "",
    location: location.pathname});
  document.body.append(out);
}
setTimeout(tell, 3000);
</script>"""


class Site(http.server.SimpleHTTPRequestHandler):
    """asv's site as it was published, its page's scripts from `SCRIPTS`."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            page = (Path(self.directory) / "index.html").read_text()
            page = re.sub(
                r'https://[^"]+/([^"/]+\.(?:js|css))" integrity="[^"]*"', r'/npm/\1"', page
            )
            assert "https://c" not in page, "a script that the test does not know"
            page = page.replace("<head>", f"<head>{LISTEN}", 1).replace(
                "</body>", f"{TELL}</body>"
            )
            self._send(page.encode(), "text/html")
        elif path.startswith("/npm/"):
            kind = "text/css" if path.endswith(".css") else "text/javascript"
            self._send((SCRIPTS / FROM_NPM[path[5:]]).read_bytes(), kind)
        else:
            super().do_GET()

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


GPU = {
    "cpu": "Host CPU", "cores": 16, "ram_bytes": 2**37, "os": "Linux", "gpu": "Example GPU 80GB",
    "gpu_memory_bytes": 80 * 2**30,
}  # fmt: skip
CPU_NAME, GPU_NAME = "example-cpu-2.5-ghz-2-cores", "example-gpu-80gb"
LAWS = {name: replace(synthetic.SEVEN[name], fails={}) for name in ("full", "sdpa", "performer")}
FASTER = 200
LENGTHS = (512, 2048, 16384)


def runs(folder: Path) -> Iterator[Path]:
    """Write synthetic runs of two commits on a CPU and on a GPU, `FASTER` times as fast."""
    fast = {name: replace(law, coefficient=law.coefficient / FASTER) for name, law in LAWS.items()}
    for month, commit in enumerate(("a" * 40, "b" * 40), 1):
        shape = {
            "lengths": LENGTHS, "launches": 2, "commit": commit, "noise": 0.001,
            "started": f"2026-0{month}-01T00:00:00Z",
        }  # fmt: skip
        yield synthetic.write_run(folder / f"cpu-{month}", LAWS, run=f"cpu-{month}", **shape)
        yield synthetic.write_run(
            folder / f"gpu-{month}", fast, run=f"gpu-{month}", machine=GPU,
            case={"device": "cuda", "dtype": "bfloat16"}, **shape,
        )  # fmt: skip


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Return a function that opens a place of the site and says what is seen there."""
    folder = tmp_path_factory.mktemp("site")
    out = export_asv(load(*runs(folder)), folder / "out").parent
    publish = [sys.executable, "-m", "asv", "publish"]
    done = subprocess.run(publish, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    handler = partial(Site, directory=str(out / "asv/html"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        @cache
        def open_place(place: str) -> dict[str, Any]:
            address = f"http://127.0.0.1:{server.server_port}/#{place}"
            profile = f"--user-data-dir={folder / 'profile'}"
            command = [str(CHROMIUM), *FLAGS, profile, "--dump-dom", address]
            dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            found = re.search(r'<pre id="told">(.*?)</pre>', dom.stdout, re.DOTALL)
            assert found, dom.stdout[-500:]
            told: dict[str, Any] = json.loads(html.unescape(found.group(1)))
            assert told["faults"] == []
            assert told["error"] == ""
            return told

        open_place.folder = out / "asv/html"
        yield open_place
        server.shutdown()


def named(label: str) -> dict[str, str]:
    """Return a curve's label as what it names: ``backend-sdpa; tokens-512``."""
    return dict(part.split("-", 1) for part in label.split("; "))


def test_a_graph_shows_both_machines_over_the_commits(
    look: Callable[[str], dict[str, Any]],
) -> None:
    seen = look("attention.forward.latency")
    curves = {
        (at["machine"], at["device"], at["dtype"], at["backend"], at["tokens"]): curve
        for curve in seen["curves"]
        if (at := named(curve["label"]))
    }
    for machine, device, dtype in ((CPU_NAME, "cpu", "float32"), (GPU_NAME, "cuda", "bfloat16")):
        for backend in LAWS:
            curve = curves[machine, device, dtype, backend, "512"]
            assert len(curve["points"]) == 2, "two commits"
            value = LAWS[backend].seconds(512) / (FASTER if device == "cuda" else 1)
            assert curve["points"][0][1] == pytest.approx(value, rel=0.1)
    assert len({curve["points"][0][0] for curve in curves.values()}) == 1, "one point a commit"
    assert seen["axes"] == {"x": "commits", "y": "microseconds"}


def test_the_parameters_are_words_with_all_that_was_chosen(
    look: Callable[[str], dict[str, Any]],
) -> None:
    panels = look("attention.forward.latency")["panels"]
    assert {name for name, _ in panels["machine"]} == {CPU_NAME, GPU_NAME}
    assert all(is_on for _, is_on in panels["machine"])
    assert [name for name, _ in panels["backend"]] == ["full", "sdpa", "performer"]
    assert [name for name, _ in panels["tokens"]] == ["512", "2048", "16384"]
    assert [name for name, _ in panels["dtype"]] == ["bfloat16", "float32"]
    assert [name for name, _ in panels["x-axis"]] == ["commit", "backend", "tokens"]
    # Nothing to choose where nothing differs, and nothing that the machine's name says already.
    assert not {"cpu", "num_cpu", "ram", "gpu", "threads", "batch", "model"} & panels.keys()


def test_a_graph_over_the_length_is_the_law_on_a_log_scale(
    look: Callable[[str], dict[str, Any]],
) -> None:
    backend = quote("'sdpa'")
    seen = look(f"attention.forward.latency?x-axis=tokens&y-axis-scale=log&p-backend={backend}")
    assert seen["axes"] == {"x": "tokens", "y": "seconds"}
    by_machine = {named(curve["label"])["machine"]: curve for curve in seen["curves"]}
    for machine, slower in ((CPU_NAME, 1), (GPU_NAME, FASTER)):
        curve = by_machine.pop(machine)
        assert curve["ink"] > 20
        lengths, values = zip(*curve["points"], strict=True)
        assert lengths == LENGTHS
        expected = [LAWS["sdpa"].seconds(n) / slower for n in LENGTHS]
        assert values == pytest.approx(expected, rel=0.1)
    assert by_machine == {}
    assert all(re.fullmatch(r"10-?\d", tick) for tick in seen["ticks"])


def test_memory_is_in_bytes_and_error_in_its_own_unit(
    look: Callable[[str], dict[str, Any]],
) -> None:
    assert look("attention.training.peak_memory")["axes"]["y"] == "megabytes"
    assert look("attention.forward.relative_error")["axes"]["y"] == "relative L2"


def test_the_list_of_a_machine_has_no_empty_rows_and_is_in_order(
    look: Callable[[str], dict[str, Any]],
) -> None:
    seen = look(f"/summarylist?machine={GPU_NAME}&device=cuda&dtype=bfloat16")
    assert [is_on for name, is_on in seen["panels"]["machine"] if name == GPU_NAME] == [True]
    times = [row for row in seen["rows"] if row[0].startswith("attention forward: time ")]
    assert [row[0].removeprefix("attention forward: time ") for row in times] == [
        f"('{backend}', {n})" for backend in sorted(LAWS) for n in LENGTHS
    ]
    assert all(re.match(r"[\d.]+(μs|ms)$", row[1]) for row in times), times
    assert all(row[1] for row in seen["rows"])


def test_the_grid_has_a_group_a_level_and_a_points_link_leads_there(
    look: Callable[[str], dict[str, Any]],
) -> None:
    about = json.loads(Path(look.folder, "index.json").read_text())
    assert about["project_url"] == "#/"
    seen = look(about["show_commit_url"].removeprefix("#") + "a" * 40)
    assert seen["groups"] == ["attention"]
    assert seen["grid"] == [
        f"attention {mode}: {what}"
        for mode in ("forward", "training")
        for what in ("time", "peak memory", "error to exact softmax")
    ]
