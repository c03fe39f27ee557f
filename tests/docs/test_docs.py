"""What README, CONTRIBUTING and docs/ show: code runs, commands are taken, links lead somewhere.

The blocks of a page are one program, in a folder that holds the files and runs that pages name.
No mark leaves a block out.
"""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import pytest
import torch
from asv.commands import make_argparser
from click.testing import CliRunner
from helpers_docs import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    command_lines,
    links,
    name_of,
    named_commands,
    prose,
)

import attention
import cli
import results
from attention import registry
from models import LSTMLayer
from results.schema import ENVIRONMENTS, LSTM, MACHINES, RECORDS
from suites.plan import plan_sweep
from suites.terminal.run_group import RunGroup

REFERENCE = ROOT / "results" / "reference"
MAKEFILE = (ROOT / "Makefile").read_text()

RUNS = {
    "epyc-2-cores/speed": (
        "mine", "first", "second", "both", "before", "after", "standard", "runs/quick", "error",
        "quality", "quantized", "sorted",
    ),
    "epyc-2-cores/decode": ("decode",),
    "epyc-2-cores/claims": ("claims",),
}  # fmt: skip
"""Run folders that pages name, by the reference sweep whose records they get."""

RUN_FOR_REAL = ("list", "doctor", "report", "recommend", "compare", "merge", "export", "check")
"""Commands that take no measurement; the others are parsed, and their sweeps made."""

DRAWN = "attnbench report mine"
"""The report that is written; others are parsed: each takes as long again."""

NOT_RUN = {
    "git": "clones; nothing of ours",
    "cd": "goes into what was cloned",
    "python3": "makes an environment",
    "env/bin/pip": "installs; .ci/smoke_wheel does",
    ".venv/bin/pre-commit": "installs a hook in the checkout",
    "eval": "sets up completion: test_completion has what it prints",
    "_ATTNBENCH_COMPLETE=fish_source": "likewise",
    "source": "reads what that printed",
    "torchrun": "starts several processes: test_context_parallel does, of the same layer",
}
"""First words of commands that are not ours, and why they are not run."""


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files and runs that pages name: of the reference records, few."""
    folder = tmp_path_factory.mktemp("stock")
    shutil.copytree(ROOT / "examples" / "plugins", folder, dirs_exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for sweep, names in RUNS.items():
        for name in names:
            _write_run(folder / name, REFERENCE / sweep)
    return folder


def _is_wanted(record: Mapping[str, Any]) -> bool:
    """Say whether a record is one of the few: two backends, three lengths, three launches."""
    case = record["case"]
    names = {arm["name"] for arm in case["arms"]}
    return case["kind"] != "speed" or (
        names <= {"sdpa", "performer"}
        and case["seq_len"] in (2048, 4096, 8192, 16384)
        and record["launch"]["index"] < 3
    )


def _write_run(folder: Path, sweep: Path) -> None:
    folder.mkdir(parents=True)
    records = map(json.loads, (sweep / RECORDS).read_text().splitlines())
    few = [{**record, "run": folder.name} for record in records if _is_wanted(record)]
    (folder / RECORDS).write_text("".join(f"{json.dumps(record)}\n" for record in few))
    for name in (MACHINES, ENVIRONMENTS):
        shutil.copyfile(sweep / name, folder / name)


@pytest.fixture
def desk(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go into a copy of the stock; without a folder `recommend` asks what lies there."""
    folder = tmp_path / "desk"
    shutil.copytree(stock, folder)
    (tmp_path / "checkout-of-before").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        "results.records.reference_runs.reference_folders",
        lambda: [folder / "mine", folder / "decode"],
    )
    return folder


@pytest.fixture
def registries(suites_restored: None) -> Iterator[None]:
    """Forget afterwards what a page registers."""
    ours = importlib.import_module("attention.integrations.transformers")
    known, options = dict(registry._registry), dict(ours._options)
    yield
    registry._registry.clear()
    registry._registry.update(known)
    ours._options.clear()
    ours._options.update(options)


# -- code -----------------------------------------------------------------------------------------


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.slow
@pytest.mark.usefixtures("registries", "desk")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page: Path) -> None:
    scope: dict[str, Any] = {}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block.text, f"{name_of(page)}, block {number}", "exec"), scope)
    plt.close("all")  # what a page draws for its reader


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_a_language_that_is_tested(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {"python", "sh", "toml", "text"}
    assert prose(page).count("```") == 0  # every fence was found
    for block in blocks(page, "toml"):
        assert tomllib.loads(block.text)


WIDEST, LONGEST = 90, 2000
"""Characters of a line of code, which is not to be wider than its column; words of a page."""

LOOKED_UP = ("docs/cli.md", "docs/cli_run.md", "docs/architecture_rooms.md")
"""Pages that nobody reads from end to end."""

READ = [
    p for p in PAGES if name_of(p).startswith(("docs/", "README")) and name_of(p) not in LOOKED_UP
]


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_a_page_is_short_and_its_code_narrow(page: Path) -> None:
    assert len(re.findall(r"\S*\w\S*", page.read_text())) <= LONGEST
    wide = [line for b in blocks(page) for line in b.text.splitlines() if len(line) > WIDEST]
    assert wide == []


def test_the_example_of_the_reference_runs() -> None:
    failed, tried = doctest.testmod(attention)
    assert (failed, tried > 0) == (0, True)


@pytest.mark.slow
def test_it_trains_on_a_cpu_with_no_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("started or compiled something")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    trained = []
    for name in attention.names():
        about = attention.describe(name)
        if about["unavailable"]["cpu"]:
            continue
        options = {"seq_len": 300} if "seq_len" in about["options"] else {}
        module = attention.build(name, num_heads=2, head_dim=16, **options)
        x = torch.randn(3, 1, 2, 300, 16, requires_grad=True)
        module(*x, is_causal=about["causal"]).square().mean().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert (x.grad != 0).any()
        trained.append(name)
    assert trained == [name for name in attention.names() if name != "xformers"]


# -- commands -------------------------------------------------------------------------------------


def context_of_main() -> click.Context:
    """Return the group's context as the command line makes it: a command keeps its help option."""
    return click.Context(cli.main, **cli.main.context_settings)


def parsed(words: list[str]) -> click.Context:
    """Parse a command line of ours; of a sweep make the grid too."""
    command = cli.main.commands[words[1]]
    context = command.make_context(words[1], words[2:], parent=context_of_main())
    if words[1] == "run":
        chosen = {
            name: value for name, value in context.params.items()
            if name not in ("preset", "plugins", "resume", "out", "cluster", "cluster_kind")
        }  # fmt: skip
        assert plan_sweep(context.params["preset"], **chosen)
        if not context.params["plugins"]:
            for arm in chosen.get("backends", ()):
                build_arm(arm)
    return context


def build_arm(arm: Any) -> None:
    if arm.name == LSTM:
        LSTMLayer(d_model=512, is_causal=True, **arm.options)
    else:
        attention.build(arm.name, num_heads=8, head_dim=64, **arm.options)


def ours(words: list[str]) -> bool:
    return words[0] in ("attnbench", ".venv/bin/attnbench")


def check_make(words: list[str]) -> None:
    """Check that a target, and what is set beside it, are there."""
    for word in words[1:]:
        name, is_set, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_set else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), words


SHELL = [page for page in PAGES if command_lines(page) and not page.name.startswith("cli")]


@pytest.mark.usefixtures("desk", "suites_restored")
@pytest.mark.parametrize("page", SHELL, ids=name_of)
def test_the_commands_of_a_page_are_taken(page: Path) -> None:
    for words in command_lines(page):
        if ours(words):
            parsed(words)
        elif words[0] == "make":
            check_make(words)
        elif words[0] == "asv":
            make_argparser()[0].parse_args(words[1:])
        elif words[0] == "python":
            is_module = words[1] == "-m"
            assert find_spec(words[2]) if is_module else (ROOT / words[1]).is_file(), words
        else:
            assert words[0] in NOT_RUN, words


def test_no_reason_for_not_running_outlives_its_command() -> None:
    shown = {words[0] for page in SHELL for words in command_lines(page)}
    assert set(NOT_RUN) <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_within_sentences_have_their_options(page: Path) -> None:
    for words in named_commands(page, "attnbench"):
        own = words[1].startswith("--")
        command = cli.main if own else cli.main.commands[words[1]]
        if isinstance(command, RunGroup):
            named = [
                word for word in words[2:] if word in command.list_commands(context_of_main())
            ]
            command = command.get_command(context_of_main(), (*named, "speed")[0])
        known = {o for p in command.params for o in p.opts if isinstance(p, click.Option)}
        assert {w for w in words if w.startswith("--")} <= known | {"--help", "--suite"}, words
    for words in named_commands(page, "make"):
        check_make(words)
    for words in named_commands(page, "asv"):
        if len(words) > 2:
            make_argparser()[0].parse_args(words[1:])
            continue
        with pytest.raises(SystemExit) as done:  # it is named, not shown: it must be there
            make_argparser()[0].parse_args([words[1], "--help"])
        assert done.value.code == 0


def test_the_readme_shows_every_command() -> None:
    shown = {words[1] for words in command_lines(ROOT / "README.md") if ours(words)}
    assert shown == set(cli.main.commands)


CHEAP = sorted(
    {
        tuple(words)
        for page in SHELL
        for words in command_lines(page)
        if ours(words) and words[1] in RUN_FOR_REAL
        if not {"--confirm", "--measure"} & {*words}
        if words[1] != "report" or " ".join(words) == DRAWN
    }
)


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("words", CHEAP, ids=" ".join)
def test_what_takes_no_measurement_runs(words: tuple[str, ...], desk: Path) -> None:
    out = parsed(list(words)).params.get("out")
    if words[1] == "merge" and out is not None and (desk / out).exists():
        shutil.rmtree(desk / out)  # the folder that this line makes
    # The time of a backend's exponent needs a quiet machine.
    more = ["--no-timing"] if words[1] == "check" else []
    done = CliRunner().invoke(cli.main, [*words[1:], *more], catch_exceptions=False)
    answers = (0, 1) if words[1] == "compare" else (0,)
    assert done.exit_code in answers, done.output
    assert done.output.strip() or (desk / out).stat().st_size
    if words[1] == "report":
        report = (desk / "mine" / "report.html").read_text()
        for chapter in re.findall(r"^\| ([A-Z][\w ]+) \|", (ROOT / "docs/report.md").read_text(),
                                  re.MULTILINE):  # fmt: skip
            assert chapter in report, chapter


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"
    for path in re.findall(
        r"(?<![\w/.])((?:attention|models|suites|results|docs)/[\w/-]*\.?\w*)", page.read_text()
    ):
        assert (ROOT / path).exists(), path


# -- the site -------------------------------------------------------------------------------------


class Html(HTMLParser):
    """What a page of the site holds: ids, links, and what a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.hrefs: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.hrefs.append(given.get("href", ""))
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href", ""))
        else:
            self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, into a folder of its own."""
    recipe = re.search(r"^docs:.*\n\t(.*)\$\(BIN\)/(mkdocs .*)$", MAKEFILE, re.MULTILINE)
    assert recipe
    assert "--strict" in recipe[2]
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", *recipe[2].split(), "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def html(site: Path) -> dict[Path, Html]:
    return {file: Html(file.read_text()) for file in site.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_on_the_site_and_links_lead_somewhere(
    site: Path, html: dict[Path, Html]
) -> None:
    places = {site / "index.html", site / "contributing.html", site / "changelog.html"}
    docs = ROOT / "docs"
    places |= {site / p.relative_to(docs).with_suffix(".html") for p in docs.rglob("*.md")}
    assert places <= html.keys()
    for file, page in html.items():
        if file.name == "404.html":  # its links are those of a server's root
            continue
        for href in page.hrefs:
            if re.match(r"[a-z]+:", href):
                continue
            path, _, anchor = href.partition("#")
            target = (file.parent / path).resolve() if path else file
            assert target.is_file(), (file.name, href)
            assert not anchor or target not in html or anchor in html[target].ids, href


@pytest.mark.slow
def test_the_site_asks_nothing_of_the_network(site: Path, html: dict[Path, Html]) -> None:
    for file, page in html.items():
        for source in page.loaded:
            assert not re.match(r"([a-z]+:)?//", source), (file.name, source)
    styles = [*site.rglob("*.css")]
    assert styles
    for file in styles:
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", file.read_text()), file


@pytest.mark.slow
def test_the_reference_has_every_public_name(html: dict[Path, Html], site: Path) -> None:
    for module in (attention, importlib.import_module("models"), results):
        page = html[site / "api" / f"{module.__name__}.html"]
        names = {f"{module.__name__}.{name}" for name in module.__all__} - {"results.plots"}
        assert names <= page.ids, names - page.ids
    hidden = [i for page in html.values() for i in page.ids if re.search(r"\._[a-z]", i)]
    assert hidden == []


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_site_can_be_searched_from_the_disk(site: Path, tmp_path: Path) -> None:
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
        "--disable-background-networking", "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path}",
    )  # fmt: skip
    page = f"{(site / 'index.html').as_uri()}?q=init_state"
    done = subprocess.run(
        [str(CHROMIUM), *flags, page], capture_output=True, text=True, check=True, timeout=120
    )
    assert re.search(r"\d+ matching documents", done.stdout)
    assert 'href="file:' in done.stdout or "import.html" in done.stdout
