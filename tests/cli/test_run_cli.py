"""What the command looks like: its help, a suite's command, and forms that are still taken."""

from __future__ import annotations

import logging
import types

import pytest
from click.testing import CliRunner, Result
from helpers_sweep import FAKE_SUITES

import cli
from attention.backends import xformers
from suites import registry
from suites.engine.driver import run_sweep
from suites.engine.preparation import prepared
from suites.engine.session import MisuseError
from suites.plan import cases, plan_sweep
from suites.terminal.options import OPTIONS, suite_options

SUITES = [suite.name for suite in registry.suites()]
COMMANDS = [["run", suite] for suite in SUITES] + [[name] for name in sorted(cli.main.commands)]
TINY = ("--launches", 1, "--mode", "forward", "--seq-len", 16, "--threads", 1)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(run_sweep.__kwdefaults__, "benchmark_dir", FAKE_SUITES)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(
        cli.main, [str(a) for a in arguments], catch_exceptions=False, terminal_width=100
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_help_is_at_most_60_lines_of_100_columns(words):
    lines = invoke(*words, "--help").output.splitlines()
    assert 5 < len(lines) <= 60
    assert max(map(len, lines)) <= 100


def test_the_command_alone_prints_its_help_in_the_order_of_use():
    alone = invoke()
    assert alone.exit_code == 0
    assert alone.output == invoke("--help").output
    listed = [line.split()[0] for line in alone.output.partition("Commands:\n")[2].splitlines()
              if line[2:3].strip()]  # fmt: skip
    assert listed[:5] == ["doctor", "run", "report", "recommend", "compare"]
    assert set(listed) == set(cli.main.commands)
    whole = " ".join(alone.output.split())
    for command in cli.main.commands.values():
        assert " ".join(command.help.partition("\n\n")[0].split()) in whole


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_its_own_options_alone_in_groups_and_an_example(name):
    shown = invoke("run", name, "--help").output
    suite = registry.find(name)
    for other in registry.suites():
        for option in other.options:
            is_own = option.name in {one.name for one in suite.options}
            assert (f"  {option.opts[-1]} " in shown) == is_own
    titles = [
        line.rstrip(":") for line in shown.splitlines() if line[:1] > " " and line.endswith(":")
    ]
    assert titles[: len(OPTIONS)] == list(OPTIONS)
    assert all(one.help for group in suite_options(suite).values() for one in group)
    (example, *_) = suite.examples
    assert f"  {example}\n" in shown
    assert ("--causal" in shown) == ("is_causal" in suite.takes)


@pytest.mark.parametrize("name", SUITES)
def test_the_examples_of_a_suite_are_accepted(name):
    run = cli.main.commands["run"]
    for line in registry.find(name).examples:
        _, _, *words = line.split()
        chosen = run.make_context("run", words).params
        assert chosen["suite"] == name
        for apart in ("plugins", "resume", "out", "cluster", "cluster_kind", "within_s"):
            del chosen[apart]
        assert plan_sweep(**chosen).suite.name == name


@pytest.mark.usefixtures("in_process", "fake")
def test_the_old_form_goes_on_working_with_a_note(tmp_path):
    old = invoke("run", *TINY, "--suite", "speed", "--backend", "linear", "--out", tmp_path / "a")
    assert (old.exit_code, "linear forward N=16  ok" in old.stderr) == (0, True)
    assert old.stderr.startswith("note: --suite speed is written `attnbench run speed` now\n")
    for words in (["speed"], []):
        new = invoke("run", *words, *TINY, "--backend", "linear", "--out", tmp_path / f"b{words}")
        assert (new.exit_code, "--suite" in new.stderr) == (0, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qualty"], "expected one of speed, peers, error, quality, quantized, claims, context, "
         "got 'qualty' (did you mean 'quality'?)"),
        (["--suite", "qualty"], "did you mean 'quality'"),
        (["error", "--suite", "quality"], "--suite: error is named already; got quality"),
        (["--seed", "1", "quality"], "a suite is named first: attnbench run quality"),
        (["--suite"], "--suite: expected one of speed, peers,"),
        (["claims", "--mode", "forward"], "--mode: an experiment has its own"),
        (["error", "--mode", "training"], "--mode: suite error is of mode forward; got training"),
        (["--backend", "full,,sdpa"], "expected NAME"),
    ],
)  # fmt: skip
def test_misuse_says_how_it_is_written(words, said, tmp_path):
    done = invoke("run", *words, *(["--out", tmp_path / "run"] * (words != ["--suite"])))
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line.replace('"', "'")


def test_backends_are_a_list():
    def labels(*words: str) -> list[str]:
        context = cli.main.commands["run"].make_context("run", [*words])
        return [arm.label for arm in context.params["backends"]]

    assert labels("--backend", "full, bigbird") == ["full", "bigbird"]
    assert labels("--backend", "full,sdpa", "--backend", "longformer:window=3,dilation=1+2") == [
        "full", "sdpa", "longformer:dilation=1+2,window=3"]  # fmt: skip
    assert labels("--backend", "longformer:window=3,dilation=2,full,bigbird:block_size=8") == [
        "longformer:dilation=2,window=3", "full", "bigbird:block_size=8"]  # fmt: skip
    assert labels() == []


# -- xformers -------------------------------------------------------------------------------------


class Child:
    """Answers like a machine without CUDA."""

    serves_none = ""

    def ask(self, request, **_):
        told = {
            "names": ["full", "sdpa", "xformers"],
            "unavailable": {"cpu": {"xformers": "no CPU kernel"},
                            "cuda": dict.fromkeys(("full", "sdpa", "xformers"), "no GPU")},
            "cases": {
                one["id"]: {
                    "misuse": None, "memory_exponent": 2.0,
                    "unsupported": ["only else"] * (one["arms"][0]["name"] == self.serves_none),
                }
                for one in request["cases"]
            },
        }  # fmt: skip
        return types.SimpleNamespace(record=told)


def test_a_backend_that_nobody_named_and_that_cannot_run_is_left_out_in_one_line():
    def measured(**chosen):
        plan, _, said = prepared(plan_sweep(None, **chosen), [], Child())
        return {case.arms[0].name for case in cases(plan)}, said

    without, said = measured()
    assert without == {"full", "sdpa"}
    assert said == ["xformers is left out (no CPU kernel); --backend xformers keeps it"]

    class Other(Child):
        serves_none = "full"

    plan, _, said = prepared(plan_sweep(None), [], Other())
    assert {arm.name for arm in plan.backends} == {"sdpa"}
    assert said[0] == "full is left out (only else); --backend full keeps it"
    named = tuple(cli.main.commands["run"].make_context(
        "run", ["--backend", "full,xformers"]).params["backends"])  # fmt: skip
    assert measured(backends=named) == ({"full", "xformers"}, [])
    with pytest.raises(MisuseError, match="--device cuda: no backend runs there"):
        measured(device="cuda")
    kernels, _, said = prepared(plan_sweep("kernels"), [], Child())
    assert ({arm.name for arm in kernels.backends}, len(said)) == ({"sdpa"}, 1)


def test_the_library_is_imported_without_its_warning(monkeypatch, caplog):
    def imported(name):
        logging.getLogger("xformers").warning("WARNING[XFORMERS]: built for another torch")
        return types.SimpleNamespace(memory_efficient_attention=1, attn_bias=2)

    monkeypatch.setattr(xformers.importlib, "import_module", imported)
    assert xformers.operators().attn_bias == 2
    assert not caplog.records
    logging.getLogger("xformers").warning("of a call")
    assert [record.message for record in caplog.records] == ["of a call"]
