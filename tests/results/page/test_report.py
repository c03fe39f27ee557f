"""The report: what it says is computed, what strangers write is shown and never run."""

from __future__ import annotations

import dataclasses
import html
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
import synthetic
from helpers_page import unscripted

from results.analysis.analysis import Analysis
from results.chapters.speed.rows import chapters
from results.chapters.speed.sentences import _doubt as doubt
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.records.load import NoRunError, load
from results.report import ReportError, write_report
from results.text import numbers

FAST = {name: synthetic.SEVEN[name] for name in ("full", "sdpa", "linformer", "xformers")}


def sentences(*folders: Path) -> str:
    found = [summarise(c) for c in chapters(Analysis(load(*folders)))]
    return "\n".join(s for paragraphs in found for p in paragraphs for s in p.sentences)


def prose(page: str) -> str:
    """The page's text, without styles and figures."""
    page = re.sub(r"<(svg|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, figures and all; it takes seconds."""
    folder = synthetic.write_run(tmp_path_factory.mktemp("run"), FAST)
    assert write_report([folder]) == [folder / "report.html", folder / "report.md"]
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> tuple[str, str]:
    return unscripted(folder / "report.html"), (folder / "report.md").read_text()


# -- the summary ---------------------------------------------------------------------------------


def test_the_summary_names_the_fastest_with_its_interval(tmp_path: Path) -> None:
    text = sentences(synthetic.write_run(tmp_path, FAST, modes=("forward",)))
    found = re.search(
        r"At 16,384 tokens linformer is the fastest: (\d+) ms, ahead of sdpa by "
        r"(\d+) × \((\d+)–(\d+)\)",
        text,
    )
    assert found, text
    spent, lead, low, high = map(int, found.groups())
    assert spent == pytest.approx(7.5e-6 * 16384 * 1000, rel=0.06)
    assert low <= 1.32e-8 * 16384 / 7.5e-6 <= high
    assert low <= lead <= high


def test_the_summary_tells_from_which_length_on(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-8, 2.0), "performer": synthetic.Law(1.3e-5, 1.0)}
    text = sentences(synthetic.write_run(tmp_path, laws, noise=0.001, modes=("forward",)))
    found = re.search(r"Faster than sdpa: performer from 1,(\d+) tokens on \((.*)–(.*)\)", text)
    assert found is not None
    assert 280 <= int(found[1]) <= 320  # they cross at 1,300
    assert found[2] < "1,300" < found[3]


def test_bounds_are_rounded_so_that_what_is_said_of_them_holds() -> None:
    assert numbers.interval(1249, 1251, numbers.about_tokens) == "(1,240–1,260)"
    assert numbers.interval(1300 + 1e-9, 1300 - 1e-9, numbers.about_tokens) == "(1,300–1,300)"
    assert numbers.interval(0.98461, 1.0141, numbers.ratio_digits) == "(0.984–1.02)"
    assert numbers.interval(0.0302, 0.0308, numbers.seconds) == "(30.2 ms–30.8 ms)"
    assert numbers.interval(0.03021, 0.03089, numbers.seconds) == "(30.2 ms–30.9 ms)"
    assert numbers.interval(-0.011, 1.001, numbers.exponent) == "(-0.02–1.01)"
    assert numbers.interval(0.101, 0.999, numbers.percent) == "(10 %–99.9 %)"
    row = {"reason": "faster at every length tried (512 to 4096)", "seq_len": 512, "ci_low": 512}
    assert doubt({**row, "ci_high": 1211.0}) == " (measurably from 1,220 on)"


def test_level_contestants_are_not_ranked(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-8, 2.0), "full": synthetic.Law(1e-8, 2.0)}
    text = sentences(synthetic.write_run(tmp_path, laws, noise=0.05, modes=("forward",)))
    assert "the fastest two, are statistically tied: their ratio is" in text
    assert "is the fastest" not in text


def test_the_summary_tells_how_far_each_goes_and_why(tmp_path: Path) -> None:
    text = sentences(synthetic.write_run(tmp_path, FAST))
    stopped = "out of memory (RuntimeError: can't allocate memory: 17 GB)"
    assert f"full: 8,192 tokens; at 16,384: {stopped}." in text
    assert "sdpa and linformer: 16,384 tokens, the longest tried." in text
    assert "xformers: nothing measured: unsupported (xformers needs CUDA)." in text


def test_the_summary_tells_memory_limit_and_exponents(tmp_path: Path) -> None:
    text = sentences(synthetic.write_run(tmp_path, FAST, modes=("forward",)))
    assert "Least memory at 16,384 tokens: sdpa with 34.4 MiB" in text
    assert "Materialised softmax (full) takes 4.00 GiB at 8,192 tokens, 240 ×" in text
    assert re.search(r"% of peak reached at 16,384 tokens: sdpa 8\d % and linformer \d\d %", text)
    line = r"Time grows with length as its FLOPs, by the exponent: full \d\.\d\d \(.*\) against"
    assert re.search(
        line + r" 2\.00, sdpa .* against 2\.00 and linformer .* against 1\.00\.", text
    )


def test_an_interval_that_says_nothing_claims_nothing(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.SEVEN["sdpa"], "performer": synthetic.SEVEN["performer"]}
    folder = synthetic.write_run(
        tmp_path, laws, lengths=(512, 1024, 1536, 2048), launches=2, noise=1.0, modes=("forward",)
    )
    text = sentences(folder)
    assert "are statistically tied" in text
    assert "Time grows" not in text
    (chapter,) = chapters(Analysis(load(folder)))
    growth = next(view for view in tables(chapter) if view.title.startswith("Exponents"))
    remarks = [row[-1].text for row in growth.rows if row[2].text == "time"]
    assert any("too uncertain to judge" in remark for remark in remarks)


@pytest.mark.parametrize(("exponent", "word"), [("1.4", "more"), ("0.7", "less")])
def test_an_exponent_off_the_operations_is_said(tmp_path: Path, exponent: str, word: str) -> None:
    laws = {"mine": synthetic.Law(1e-5, float(exponent), ops_exponent=1.0)}
    text = sentences(synthetic.write_run(tmp_path, laws, modes=("forward",)))
    head = f"Time grows {word} than its FLOPs, by the exponent: mine "
    assert re.search(head + rf"{exponent[0]}\.\d\d \(.*\) against 1\.00\.", text)


def test_one_launch_has_exponents_and_no_verdict(tmp_path: Path) -> None:
    text = sentences(synthetic.write_run(tmp_path, FAST, launches=1, modes=("forward",)))
    assert "Time grows" not in text


def test_layers_tell_what_everything_but_attention_takes(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.SEVEN["sdpa"], "identity": synthetic.Law(1e-6, 1.0)}
    folder = synthetic.write_run(
        tmp_path, laws, case={"level": "layer"}, noise=0.0, sample_noise=0.0, modes=("forward",)
    )
    text = sentences(folder)
    rest = "Without the attention that is compared the rest takes 16.4 ms at 16,384 tokens"
    assert f"{rest} (the identity variant)." in text
    assert "Faster than" not in text


# -- the page and the Markdown -------------------------------------------------------------------


@pytest.mark.drawn
def test_the_answer_comes_before_figures_tables_and_environment(written: tuple[str, str]) -> None:
    for text in written:
        title = "only linformer is faster than exact attention"
        words = (
            title,
            "faster than sdpa from",
            "Summary in sentences",
            "Figures",
            "Tables",
            "Environment",
        )
        marks = [text.index(word) for word in words]
        assert marks == sorted(marks)
    for text in (prose(written[0]), written[1]):
        for fact in ("Example CPU 2.5 GHz", "2.13.0", "24.0 GiB", "180 GFLOP/s", "linformer"):
            assert fact in text


def test_the_scripts_of_others_are_those_that_are_listed() -> None:
    vendor = Path(__file__).parents[3] / "results" / "templates" / "vendor"
    listed = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$",
                             (vendor / "README.md").read_text(), flags=re.MULTILINE))  # fmt: skip
    found = {file.name: sha256(file.read_bytes()).hexdigest() for file in vendor.glob("*.js")}
    assert listed == found
    assert found


@pytest.mark.drawn
def test_a_policy_allows_the_pages_scripts_and_no_others(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    allowed = re.search(r"script-src (.*?); connect-src", page)
    assert allowed is not None
    sums = [b64encode(sha256(text.encode()).digest()).decode() for text in scripts]
    assert html.unescape(allowed.group(1)).split() == [f"'sha256-{found}'" for found in sums]
    assert "default-src 'none'" in page


@pytest.mark.drawn
def test_the_page_is_self_contained(written: tuple[str, str]) -> None:
    page = written[0]
    assert len(page) < 5e6
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page.replace('xlink:href="#', ""))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page
    assert page.count("<figure") == 6
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.drawn
def test_ids_on_the_page_are_unique(written: tuple[str, str]) -> None:
    ids = re.findall(r'\bid="([^"]*)"', written[0])
    assert len(ids) == len(set(ids))


@pytest.mark.drawn
def test_markdown_tables_have_equal_columns_and_images_beside(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    widths: list[int] = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        elif widths:
            assert len(set(widths)) == 1
            assert len(widths) > 2
            widths = []
    images = re.findall(r'(?:src|srcset)="([^"]*)"', text)
    assert len(images) == 12
    for image in images:
        assert (folder / image).read_bytes().startswith(b"\x89PNG")


@pytest.mark.drawn
def test_equal_records_give_an_equal_report(folder: Path, tmp_path: Path) -> None:
    first = (folder / "report.html").read_bytes()
    assert write_report([folder], ["html"], tmp_path)[0].read_bytes() == first


PARTIAL = {
    "one length": {"lengths": (4096,)},
    "one launch": {"launches": 1, "lengths": (512, 2048)},
    "no roofs": {"roof": None, "lengths": (512, 2048)},
    "one backend": {"laws": {"performer": synthetic.SEVEN["performer"]}},
    "only failures": {
        "laws": {"full": dataclasses.replace(
            FAST["full"], fails=dict.fromkeys(synthetic.LENGTHS, ("crashed", "killed")))}
    },
    "roofs alone": {"laws": {}},
    "a case with keys of another length": {"lengths": (512, 2048), "case": {"key_len": 128}},
}  # fmt: skip


EMPTY = ("only failures", "roofs alone")
"""Of those, the ones that draw nothing."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.drawn] * (name in EMPTY)) for name in PARTIAL],
)
def test_a_partial_run_has_a_sensible_report(tmp_path: Path, name: str) -> None:
    options = {"laws": FAST, "modes": ("forward",), **PARTIAL[name]}
    page = unscripted(write_report([synthetic.write_run(tmp_path, **options)], ["html"])[0])
    text = prose(page)
    assert not re.search(r"\b(nan|inf|None|<NA>)\b", text, flags=re.IGNORECASE)
    assert "How it was measured" in text
    if name in EMPTY:
        assert page.count("<svg") == 0
    if name == "only failures":
        assert "full: nothing measured: crashed (killed)." in text
    if name == "one launch":
        assert "no interval" in text
    if name == "roofs alone":
        assert "No speed case was measured." in text


def test_two_machines_stand_in_chapters_of_their_own(tmp_path: Path) -> None:
    shape = {"lengths": (512, 2048), "launches": 1, "modes": ("forward",)}
    one = synthetic.write_run(tmp_path / "1", FAST, **shape)
    two = synthetic.write_run(
        tmp_path / "2", FAST, **shape, run="run-2", machine={"cpu": "Another CPU"}
    )
    out = tmp_path / "both"
    (page,) = write_report([one, two], ["html"], out)
    assert page == out / "report.html"
    titles = re.findall(r'<h3 class="setting">(.*?)</h3>', page.read_text())
    assert [t.split(":")[0] for t in titles] == ["Example CPU 2.5 GHz", "Another CPU"]


def test_warnings_of_the_loader_stand_on_the_page(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, FAST, lengths=(512,), launches=1)
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"torn')
    written = write_report([folder])
    page, markdown = unscripted(written[0]), written[1].read_text()
    for text in (prose(page), markdown):
        assert "not JSON" in text


@pytest.mark.parametrize(
    ("formats", "out", "message"),
    [
        (["pdf"], None, "format: expected html or md, got 'pdf'"),
        ([], None, "format: expected html or md, got none"),
        (["html", "md"], "x.html", "out: .*x.html is one file"),
        (["html"], "x.md", "out: .*x.md is one file"),
        (["html"], "run/records.jsonl", "out: .* is a file"),
    ],
)
def test_misuse_names_the_argument(
    tmp_path: Path, formats: list[str], out: str | None, message: str
) -> None:
    folder = synthetic.write_run(tmp_path / "run", FAST, lengths=(512,), launches=1)
    with pytest.raises(ReportError, match=message):
        write_report([folder], formats, None if out is None else tmp_path / out)


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoRunError, match="no run here"):
        write_report([tmp_path])
    assert list(tmp_path.iterdir()) == []
