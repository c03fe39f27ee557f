"""Run folders of a stranger: every fault is named, the rest is used, nothing leaves the folder."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fuzz_records
import pandas as pd
import pytest
import synthetic
from click.testing import CliRunner
from helpers_page import unscripted
from helpers_untrusted import MARKS, hostile_run, lines, rewrite

import results.records.json_lines
from cli import main
from results.analysis.series import points
from results.comparison.compare import compare
from results.comparison.page import comparison_page
from results.export.asv import export_asv
from results.export.asv_history import ExportError
from results.export.tables import TABLES, export_table
from results.page.markdown import escape_markdown
from results.records.load import NoRunError, load
from results.records.merge import merge
from results.report import write_report
from results.schema import MACHINES, MEASUREMENT, RECORDS, content_id

ROOT = Path(__file__).parents[3]
ONE: dict[str, Any] = {"lengths": (512,), "launches": 1, "modes": ("forward",)}
SMALL: dict[str, Any] = {"lengths": (512, 1024), "launches": 2, "modes": ("forward",)}
TWO = {name: synthetic.SEVEN[name] for name in ("sdpa", "longformer")}


def rehashed(record: dict[str, Any], **case: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(record))
    made["case"].update(case)
    fuzz_records._rehash(made)
    return made


# -- lines ---------------------------------------------------------------------------------------


def test_ends_of_lines_may_be_windows(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    count = len(lines(folder))
    content = (folder / RECORDS).read_bytes().replace(b"\n", b"\r\n")
    (folder / RECORDS).write_bytes(content + b"\r\n \n")
    run = load(folder)
    assert (len(run.records), run.warnings) == (count, ())


def test_a_line_without_end_is_skipped_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results.records.json_lines, "LONGEST_LINE", 20_000)
    monkeypatch.setattr(results.records.json_lines, "_CHUNK", 1000)
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    good = lines(folder)
    run = load(rewrite(folder, good[0], b'"' + b"x" * 50_000, good[1], good[2]))
    assert run.warnings == (f"{folder / RECORDS}:2: longer than 20000 bytes; left out",)
    assert len(run.records) == 3


def test_a_file_beyond_any_run_is_read_up_to_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    first = len((folder / RECORDS).read_bytes().splitlines()[0])
    monkeypatch.setattr(results.records.json_lines, "LARGEST_FILE", first + 10)
    run = load(folder)
    assert len(run.records) == 1
    assert (
        f":2: the file is larger than {first + 10} bytes; left out from this line on"
        in (run.warnings[0])
    )


def test_a_sparse_file_of_a_terabyte_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results.records.json_lines, "LARGEST_FILE", 64 * 2**20)
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    with (folder / RECORDS).open("ab") as file:
        file.truncate(2**40)
    run = load(folder)
    assert len(run.records) == 3
    assert "larger than" in run.warnings[0]


# -- what stands in the place of a file ----------------------------------------------------------


def in_its_place(folder: Path, name: str, what: str) -> None:
    file = folder / name
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "socket":
        os.chdir(folder)  # a socket's path is short
        socket.socket(socket.AF_UNIX).bind(name)
    elif what == "link to nothing":
        file.symlink_to(folder / "nothing")
    elif what == "link to itself":
        file.symlink_to(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "empty":
        file.touch()


PLACES = ("folder", "pipe", "socket", "link to nothing", "link to itself", "device", "empty")


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_file_of_records_is_no_run(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = synthetic.write_run(tmp_path / "run", TWO, **ONE)
    in_its_place(folder, RECORDS, what)
    with pytest.raises(NoRunError, match=re.escape(str(folder))):
        load(folder)
    done = CliRunner().invoke(main, ["report", str(folder)])
    assert isinstance(done.exception, SystemExit), done.output
    assert done.exit_code == 2


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("what", PLACES)
def test_a_description_that_is_no_file_costs_the_description(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = synthetic.write_run(tmp_path / "run", TWO, **ONE)
    in_its_place(folder, MACHINES, what)
    run = load(folder)
    assert len(run.records) == 3
    assert any("machine" in w for w in run.warnings)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", TWO, **ONE)
    (folder / RECORDS).rename(tmp_path / "elsewhere.jsonl")
    (folder / RECORDS).symlink_to(tmp_path / "elsewhere.jsonl")
    assert len(load(folder).records) == 3


def test_what_may_not_be_read_is_an_error_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    opened = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(refused):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    refused = MACHINES
    run = load(folder)
    assert f"{folder / MACHINES}: Permission denied; left out" in run.warnings
    assert len(run.records) == 3
    refused = RECORDS
    with pytest.raises(PermissionError) as caught:
        load(folder)
    assert caught.value.filename == str(folder / RECORDS)


def test_a_disk_that_fails_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    class Failing:
        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None: ...

        def readline(self, _: int) -> bytes:
            raise OSError(5, "Input/output error")

    source: Any = Failing()
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(results.records.json_lines.json_lines(source, tmp_path / RECORDS, []))
    assert caught.value.filename == str(tmp_path / RECORDS)


def test_a_folders_own_name_may_be_hostile(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\x1b[31m<script>\n")
    synthetic.write_run(folder, TWO, **ONE)
    rewrite(folder, *lines(folder), b"{")
    for warning in load(folder).warnings:
        assert warning.isprintable()
        warning.encode()
    page, _ = write_report([folder])
    assert "<script" not in unscripted(page)
    (folder / RECORDS).unlink()
    with pytest.raises(NoRunError) as caught:
        load(folder)
    str(caught.value).encode()


# -- records -------------------------------------------------------------------------------------


def speed(folder: Path) -> dict[str, Any]:
    return next(r for r in lines(folder) if r["case"]["kind"] == "speed")


def test_a_second_record_of_a_launch_is_said_where_it_says_something_else(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    good = lines(folder)
    other = json.loads(json.dumps(good[1]))
    other["arms"][0]["metrics"]["latency"]["samples"] = [123.0]
    run = load(rewrite(folder, *good, good[1], other))
    assert len(run.records) == len(good)
    other_said, same_said = run.warnings
    assert other_said.startswith(
        f"{folder / RECORDS}:{len(good) + 2}: another result of process 0"
    )
    assert same_said == "1 duplicate result dropped"
    assert 123.0 not in {s for samples in run.frame["samples"] for s in samples}


def test_a_machine_described_twice_is_said(tmp_path: Path) -> None:
    one = synthetic.write_run(tmp_path / "1", TWO, **ONE)
    two = synthetic.write_run(tmp_path / "2", TWO, **ONE, run="run-2")
    address = content_id(synthetic.MACHINE)
    (two / MACHINES).write_text(json.dumps({"id": address, "cpu": "another"}) + "\n")
    run = load(one, two)
    assert run.machines[address]["cpu"] == synthetic.MACHINE["cpu"]
    assert any(f"{two / MACHINES}:1: {address} is described twice" in w for w in run.warnings)


def test_names_that_are_cut_stay_apart(tmp_path: Path) -> None:
    laws = {"x" * 200 + end: synthetic.Law(1e-6, 1.0) for end in "ab"}
    run = load(synthetic.write_run(tmp_path, laws, **ONE))
    names = set(run.frame[run.frame["kind"] == "speed"]["backend"])
    assert len(names) == 2
    assert {len(name) for name in names} == {100}


# -- versions and machines -----------------------------------------------------------------------


def test_versions_of_the_measuring_code_are_not_compared_and_all_merged(tmp_path: Path) -> None:
    shape = {**SMALL, "launches": 1}
    versions = (MEASUREMENT - 1, MEASUREMENT, MEASUREMENT + 998)
    folders = [
        synthetic.write_run(tmp_path / str(v), TWO, **shape, run=f"run-{v}", measurement=v)
        for v in versions
    ]
    count = len(lines(folders[0]))
    timed = sum(record["case"]["kind"] == "speed" for record in lines(folders[0]))
    assert 0 < timed < count
    for run in (load(*folders), load(merge(folders, tmp_path / "merged").folder)):
        assert {r["measurement"] for r in run.records} == {MEASUREMENT}
        assert set(run.frame["run"]) == {f"run-{MEASUREMENT}"}
        said = [w for w in run.warnings if "measuring code" in w]
        assert len(said) == 2
        # With its times goes what tells of a run: its machine's peaks.
        assert said[0].startswith(
            f"{timed} results of an older version of the measuring code left out (speed,"
        )
        assert said[1].startswith(
            f"{timed} results of a newer version of the measuring code left out (speed,"
        )
    merged = lines(tmp_path / "merged")
    assert Counter(r["measurement"] for r in merged) == dict.fromkeys(versions, count)


def two_machines(tmp_path: Path, second: dict[str, Any]) -> list[Path]:
    """Equal case ids, equal run ids, equal launches; the second ten times as slow."""
    laws = {"full": synthetic.Law(1e-6, 1.0), "sdpa": synthetic.Law(5e-7, 1.0)}
    slow = {"full": synthetic.Law(1e-5, 1.0), "sdpa": synthetic.Law(5e-6, 1.0)}
    shape: dict[str, Any] = {**SMALL, "noise": 0.0, "sample_noise": 0.0}
    return [
        synthetic.write_run(tmp_path / "1", laws, **shape, floor=synthetic.Law(1e-7, 1.0)),
        synthetic.write_run(
            tmp_path / "2", slow, **shape, machine=second, floor=synthetic.Law(1e-6, 1.0)
        ),
    ]


@pytest.mark.parametrize("second", [{"cpu": "Another"}, {**synthetic.MACHINE, "ram_bytes": 1}])
def test_machines_of_one_runs_name_are_not_mixed(tmp_path: Path, second: dict[str, Any]) -> None:
    folders = two_machines(tmp_path, second)
    assert {r["case"]["id"] for r in lines(folders[0])} == {
        r["case"]["id"] for r in lines(folders[1])
    }
    merged = merge(folders, tmp_path / "merged")
    assert merged.num_records == sum(len(lines(f)) for f in folders)
    for run in (load(*folders), load(merged.folder)):
        assert not run.warnings
        table = points(run)
        full = table[(table["backend"] == "full") & (table["metric"] == "latency")]
        for machine, factor in ((content_id(synthetic.MACHINE), 1), (content_id(second), 10)):
            row = full[(full["machine"] == machine) & (full["seq_len"] == 1024)].iloc[0]
            assert row["value"] == pytest.approx(1e-6 * 1024 * factor)
            assert list(row["launches"]) == pytest.approx([row["value"]] * 2)
            assert list(row["floors"]) == pytest.approx([1e-7 * 1024 * factor] * 2)
        crossing = json.loads(str(export_table(run, "cases", "json")))
        shown = [r for r in crossing if r["metric"] == "latency" and r["backend"] == "full"]
        assert {r["num_launches"] for r in shown} == {2}
    (page,) = write_report([merged.folder], ["html"])
    titles = re.findall(r'<h3 class="setting">(.*?)</h3>', page.read_text())
    assert len(titles) == len(set(titles)) == 2
    # Within a machine sdpa is twice as fast; across them it would be 20 or 0.2 times.
    answers = page.read_text().split('<details class="part" id="trust"')[0]
    assert not re.search(r"\b(20|0\.20?) ×", answers)


def test_peers_of_two_machines_keep_their_own_claims(tmp_path: Path) -> None:
    one = synthetic.write_peer_run(tmp_path / "1", launches=1)
    two = synthetic.write_peer_run(tmp_path / "2", launches=1)
    changed = lines(two)
    for record in changed:
        record["machine"] = "other"
        for arm in record["arms"]:
            if "peer" in arm:
                arm["peer"]["difference"] = "on the other machine"
    rewrite(two, *changed)
    rows = json.loads(str(export_table(load(one, two), "peers", "json")))
    for row in rows:
        told = row["difference"] == "on the other machine"
        assert told == (row["machine"] == "other" and row["status"] == "ok")


# -- all the way ---------------------------------------------------------------------------------


ELEMENTS = frozenset({
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "h4", "p",
    "nav", "a", "div", "strong", "ul", "li", "main", "section", "figure", "figcaption", "table",
    "thead", "tbody", "tr", "th", "td", "span", "small", "details", "summary", "dl", "dt", "dd",
    "button", "code", "svg", "defs", "g", "path", "use", "text", "tspan", "rect", "clippath",
})  # fmt: skip
ATTRIBUTES = frozenset({
    "lang", "charset", "name", "content", "id", "class", "href", "role", "tabindex", "aria-label",
    "scope", "title", "style", "d", "transform", "width", "height", "x", "y", "viewbox", "xmlns",
    "xmlns:xlink", "xlink:href", "version", "clip-path", "type", "hidden", "data-panels",
    "download", "aria-labelledby", "aria-live", "aria-pressed", "value", "size", "min", "step",
    "placeholder", "inputmode", "data-mode", "data-what", "data-choose", "data-from", "data-more",
    "data-height",
})  # fmt: skip


class Shape(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src", "xlink:href", "action", "srcset"):
                self.addresses.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = hostile_run(tmp_path_factory.mktemp("hostile") / "run")
    before = set(folder.parent.parent.rglob("*"))
    page, markdown = write_report([folder])
    made = set(folder.parent.parent.rglob("*")) - before
    assert all(p.is_relative_to(folder) for p in made)
    return folder, unscripted(page), markdown.read_text()


def check_page(page: str) -> None:
    """Check that a page is made of our elements alone and shows strange names as text."""
    shape = Shape(page)
    assert shape.elements - ELEMENTS == set()
    assert shape.attributes - ATTRIBUTES == set()
    assert all(address.startswith("#") for address in shape.addresses)
    text = "".join(shape.text)
    for mark in (MARKS[0], MARKS[1], "a|b", "../../x", "{{ 7 * 191 }}", "😀"):
        assert mark in text
    assert "1337" not in text


@pytest.mark.slow
def test_nothing_of_a_page_comes_from_a_strangers_names(hostile: tuple[Path, str, str]) -> None:
    check_page(hostile[1])
    for character in "\x1b\u202e\u2066\x00\ud800":
        assert character not in hostile[1]
        assert character not in hostile[2]
    assert len(hostile[1]) < 10e6


@pytest.mark.slow
def test_nothing_of_a_comparison_comes_from_a_strangers_names(
    hostile: tuple[Path, str, str],
) -> None:
    run = load(hostile[0])
    check_page(unscripted(comparison_page(run, run, compare(run, run))))


@pytest.mark.slow
def test_nothing_of_the_markdown_is_html_but_ours(hostile: tuple[Path, str, str]) -> None:
    shape = Shape(hostile[2])
    assert not shape.elements - {"picture", "source", "img", "details", "summary", "p"}
    assert not shape.attributes - {"media", "srcset", "alt", "src"}
    for address in shape.addresses:
        assert re.fullmatch(r"figures/[a-z]+[\d]*(-[a-z\d]+)*-(light|dark)\.png", address)
    assert not re.search(r"(?<!\\)\]\(", hostile[2])


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"), ("a|b", "a\\|b"), ("# x", "\\# x"), ("- x", "\\- x"),
        ("12. x", "12\\. x"), ("1.5 s", "1.5 s"), ("-0.5", "-0.5"), ("[a](b)", "\\[a\\](b)"),
    ],
)  # fmt: skip
def test_markdown_shows_marks_as_they_are(raw: str, shown: str) -> None:
    assert escape_markdown(raw) == shown


@pytest.mark.slow
def test_exports_of_hostile_names_stay_in_their_folder(
    hostile: tuple[Path, str, str], tmp_path: Path
) -> None:
    run = load(hostile[0])
    out = tmp_path / "a" / "out"
    export_asv(run, out)
    merge([hostile[0]], tmp_path / "a" / "merged")
    for table in TABLES:
        text = export_table(run, table, "json" if table == "cases" else "csv")
        assert text is not None
        assert "\x1b" not in text
        export_table(run, table, "parquet", tmp_path / "a" / f"{table}.parquet")
        pd.read_parquet(tmp_path / "a" / f"{table}.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "out", "merged", *(f"{t}.parquet" for t in TABLES)
    }  # fmt: skip
    results_at = out / "asv" / "results"
    assert {p.name for p in out.iterdir()} == {"asv", "asv.conf.json"}
    for file in results_at.rglob("*"):
        assert re.fullmatch(r"[a-z0-9.-]+", file.name), file


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "", "a/b", "x" * 10**5, "\x00"])
def test_machines_and_pythons_name_no_path(tmp_path: Path, name: str) -> None:
    folder = synthetic.write_run(
        tmp_path / "run", TWO, **ONE, machine={"cpu": name},
        environment={"python": name + "." * 300 + "1" * 300},
    )  # fmt: skip
    out = tmp_path / "out"
    export_asv(load(folder), out)
    merge([folder], tmp_path / "merged")
    if name in ("../../x", "\x00"):  # a report names no file by what it tells of
        write_report([folder])
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out", "merged"}


def test_a_link_in_a_run_folder_leads_nobody_out_of_it(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", TWO, **SMALL)
    precious = tmp_path / "precious"
    (precious / "results").mkdir(parents=True)
    (precious / "results" / "thesis").write_text("x")
    (folder / "asv").symlink_to(precious)
    (folder / "asv.conf.json").write_text(json.dumps({"repo": "asv/commits.git"}))
    with pytest.raises(OSError, match="a link leads out of"):
        export_asv(load(folder), folder)
    (folder / "figures").symlink_to(precious)
    with pytest.raises(OSError, match="a link leads out of"):
        write_report([folder], ["md"])
    done = CliRunner().invoke(main, ["report", str(folder), "--format", "md"])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert "figures" in done.output
    assert [p.name for p in precious.rglob("*")] == ["results", "thesis"]


def test_asv_refuses_tables_of_every_combination(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    one = speed(folder)
    every = [
        rehashed(one, arms=[{"name": f"n{n}", "options": {}}], seq_len=n, key_len=n)
        for n in range(1, 460)
    ]
    run = load(rewrite(folder, *every))
    with pytest.raises(ExportError, match=r"every combination of .*: .* more than"):
        export_asv(run, tmp_path / "out")


@pytest.mark.slow
def test_a_run_of_many_names_has_a_report(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **ONE)
    one = speed(folder)
    every = [rehashed(one, arms=[{"name": f"n{i}", "options": {}}]) for i in range(120)]
    run = load(rewrite(folder, *every))
    assert len(run.records) == 120
    (page,) = write_report([folder], ["html"])
    assert "n119" in page.read_text()


def test_the_command_line_prints_no_control_characters(tmp_path: Path) -> None:
    folder = hostile_run(tmp_path / "run")
    bad = speed(synthetic.write_run(tmp_path / "other", TWO, **ONE))
    bad["case"]["\x1b]0;x\x07"] = 1
    bad["arms"][0]["metrics"]["\x1b[31m\u202e"] = {"unit": "1"}
    rewrite(
        folder, *lines(tmp_path / "run" / "peers"), speed(folder) if False else bad, b"\x1b[0m"
    )
    for command in (
        ["report", folder], ["export", folder], ["merge", folder, "--out", tmp_path / "merged"],
        ["export", folder, "--table", "peers", "--format", "json"],
    ):  # fmt: skip
        done = CliRunner().invoke(main, [str(c) for c in command])
        assert done.exit_code == 0, done.output
        for line in done.output.splitlines():
            assert line.isprintable(), repr(line)


# -- by the thousand -----------------------------------------------------------------------------


@pytest.mark.slow
def test_thousands_of_hostile_records_are_used_or_named() -> None:
    outcomes: Counter[str] = Counter()
    for start in range(0, 2 * fuzz_records.BATCH, fuzz_records.BATCH):
        outcomes += fuzz_records.batch(0, start, start + fuzz_records.BATCH, tables=start == 0)
    assert outcomes["files loaded"] == 2
    assert outcomes["records used"] > 400
    assert outcomes["lines named and left out"] > 1200


@pytest.mark.slow
def test_the_fuzzer_is_reproducible_and_notices(tmp_path: Path) -> None:
    first = [fuzz_records.line(3, i) for i in range(300)]
    assert first == [fuzz_records.line(3, i) for i in range(300)]
    assert fuzz_records.line(3, 7) != fuzz_records.line(4, 7)
    program = (
        "import sys, fuzz_records as f, results.records.load as l\n"
        "def broken(record): raise KeyError(record['status'])\n"
        "l.check_record = broken\n"
        "sys.exit(f.main(['--count', '60', '--reports', '0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/helpers:{ROOT}/tests/programs"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "KeyError" in done.stdout
    assert re.search(r"--seed 0 --only \d+", done.stdout)
