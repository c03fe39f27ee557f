"""What the shell offers: the scripts of three shells, and names without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import synthetic
from click.shell_completion import ShellComplete

import cli
from suites import names, registry
from suites.claims.suite import CLAIMS as CLAIM_IDS
from suites.error.suite import input_names

ROOT = Path(__file__).parents[3]


def offered(line: str) -> list[str]:
    """Return what is offered for the last word of a line; a kind of path in angle brackets."""
    _, *words = line.split(" ")
    *before, incomplete = words
    shell = ShellComplete(cli.main, {}, "attnbench", "_ATTNBENCH_COMPLETE")
    items = shell.get_completions(before, incomplete)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


def test_names_are_those_that_are_registered() -> None:
    import attention
    from models import CONFIGS
    from results.chapters.claims.catalogue import CLAIMS
    from suites.error.inputs import DRAWN
    from suites.error.suite import TRAINED_NAME
    from suites.peers import registry as peers
    from suites.tasks import registry as tasks

    assert names.backends() == [n for n in attention.names() if n in names.backends()]
    ours = {n for n in attention.names() if attention.registry.get(n).__module__.startswith("att")}
    assert ours <= set(names.backends())
    assert set(names.peers()) >= set(peers.names())
    assert set(names.tasks()) >= {str(one["name"]) for one in tasks.describe()}
    assert names.models() == list(CONFIGS)
    assert set(CLAIM_IDS) == {claim.id for claim in CLAIMS}
    assert set(input_names()) == {*DRAWN, TRAINED_NAME}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("attnbench rec", ["recommend"]),
        ("attnbench run --backend perf", ["performer"]),
        ("attnbench run --backend ls", ["lstm"]),
        ("attnbench run ", [suite.name for suite in registry.suites()]),
        ("attnbench run qua", ["quality", "quantized"]),
        ("attnbench run --prec", ["--precision"]),
        ("attnbench run quality --prec", []),
        ("attnbench run --backend full,perf", ["full,performer"]),
        ("attnbench run --preset mil", ["million"]),
        ("attnbench run --mode forward,", ["forward,training", "forward,decode"]),
        ("attnbench run --compile o", ["off", "on"]),
        ("attnbench run claims --claim attention-q", ["attention-quadratic"]),
        ("attnbench run quality --task need", ["needle"]),
        ("attnbench run --model bert", ["bert-base"]),
        ("attnbench run error --inputs pea", ["peaked"]),
        ("attnbench run peers --peers linformer,local", ["linformer,local-attention"]),
        ("attnbench recommend --mode dec", ["decode"]),
        ("attnbench recommend --error-inputs low", ["low_rank"]),
        ("attnbench recommend --recall-task rec", ["recall"]),
        ("attnbench export --table sca", ["scaling"]),
        ("attnbench check bigb", ["bigbird"]),
        ("attnbench check ./my_", ["<file>"]),
        ("attnbench run --plugin my_", ["<file>"]),
        ("attnbench run --out my_", ["<dir>"]),
    ],
)
def test_values_are_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_every_choice_of_an_option_is_offered() -> None:
    """A value that must be one of some is offered, whatever type reads it."""
    asked = 0
    run = cli.main.commands["run"]
    suites = {f"run {one}": run.get_command(None, one) for one in run.list_commands(None)}
    for name, command in (cli.main.commands | suites).items():
        for option in command.params:
            kind = getattr(option.type, "kind", option.type)
            if isinstance(kind, click.Choice) and not option.hidden:
                assert offered(f"attnbench {name} {option.opts[0]} ") == list(kind.choices)
                asked += 1
    assert asked > 15


def test_run_folders_are_offered_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/today", "runs/before", "mine"):
        (tmp_path / name).mkdir(parents=True)
        synthetic.write_run(tmp_path / name, lengths=(512,), launches=1)
    (tmp_path / "other").mkdir()
    every = ["mine", "runs/before", "runs/today"]
    for command in ("report", "merge", "export", "recommend", "compare"):
        assert offered(f"attnbench {command} ") == every
    assert offered("attnbench compare runs/before runs/t") == ["runs/today"]
    assert offered("attnbench report runs/") == every[1:]
    assert offered(f"attnbench report {tmp_path}/mi") == [f"{tmp_path}/mine"]
    assert offered("attnbench report oth") == ["<dir>"]
    assert offered("attnbench report no/such/") == ["<dir>"]


def test_completing_does_not_import_torch() -> None:
    program = (
        "import sys; import test_completion as t\n"
        "for line in ('run --backend p', 'run peers --peers l', 'run quality --task r',\n"
        "             'check b', 'report '):\n"
        "    t.offered('attnbench ' + line)\n"
        "heavy = {'torch', 'pandas', 'numpy', 'asv', 'attention', 'models', 'rich'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    # The helpers of this file import numpy: the functions are taken from the source alone.
    source = Path(__file__).read_text()
    start, end = source.index("def offered"), source.index("def test_names_are")
    head = (
        "import sys, types, cli\nfrom click.shell_completion import ShellComplete\n"
        "t = types.ModuleType('test_completion')\nt.cli, t.ShellComplete = cli, ShellComplete\n"
        f"exec({source[start:end]!r}, t.__dict__)\nsys.modules['test_completion'] = t\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", head + program], check=True, env={**os.environ, "PYTHONPATH": path}
    )


def ask(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a shell's script does."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [Path(sys.executable).with_name("attnbench")], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, **variables},
    )  # fmt: skip


@pytest.mark.slow
def test_an_answer_takes_less_than_half_a_second() -> None:
    spent = []  # of a processor, which other programs do not make longer
    for _ in range(3):
        before = os.times()
        done = ask(
            _ATTNBENCH_COMPLETE="bash_complete", COMP_WORDS="attnbench run --backend lon",
            COMP_CWORD="3",
        )  # fmt: skip
        after = os.times()
        spent.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.stdout.split() == ["plain,longformer"], done.stderr
    assert 0 < min(spent) < 0.5


BASH = """
{script}
COMP_WORDS=(attnbench run --backend perf); COMP_CWORD=3
_attnbench_completion attnbench
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, tmp_path: Path) -> None:
    done = ask(_ATTNBENCH_COMPLETE=f"{shell}_source")
    assert done.returncode == 0, done.stderr
    assert f"_ATTNBENCH_COMPLETE={shell}_complete" in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed: its script is made, and not tried")
    file = tmp_path / "script"
    file.write_text(done.stdout)
    subprocess.run([program, "-n", str(file)], check=True)  # its grammar
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": ours, "HOME": str(tmp_path)}
    asked = {
        "bash": BASH.format(script=done.stdout),
        "fish": f"source {file}; complete -C 'attnbench run --backend perf'",
    }
    if shell in asked:
        found = subprocess.run(
            [program, "-c", asked[shell]], capture_output=True, text=True, env=environment,
            check=False,
        )  # fmt: skip
        assert found.stdout.split() == ["performer"], found.stderr


def test_the_page_names_the_scripts() -> None:
    page = (ROOT / "docs" / "shell.md").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert f"_ATTNBENCH_COMPLETE={shell}_source attnbench" in page
