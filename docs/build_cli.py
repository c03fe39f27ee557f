"""Write docs/cli.md and cli_run.md, the reference of the command line, from the command itself.

python docs/build_cli.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import cli
from suites.terminal.run_group import USUAL, RunGroup, SuiteCommand

PAGE, RUN_PAGE = (Path(__file__).with_name(name) for name in ("cli.md", "cli_run.md"))

HEAD = """\
# The command line

<!-- Made from the command by `python docs/build_cli.py`; a test compares. -->

Exit codes: 0 done (a sweep that completes is done, whatever its statuses), 1 not done, 2 misuse
(one line that says what is accepted), 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
`compare` ends with 1 where a case or a whole backend became worse, and with 3 where it could not
measure; `recommend` with 1 where no backend qualifies. [In the shell](shell.md) says how options
and values are completed, and what a terminal and a pipe get. `attnbench run` has
[a page of its own](cli_run.md).
"""

RUN_HEAD = """\
# attnbench run

<!-- Made from the command by `python docs/build_cli.py`; a test compares. -->

A subcommand for each suite, with its own options alone. [The other commands](cli.md).
"""

EXAMPLES = {
    "list": ["attnbench list", "attnbench list --json", "attnbench list --peers"],
    "run": [
        "attnbench run --preset quick --out runs/today",
        "attnbench run --backend full,sdpa "
        "--backend longformer:window=64,dilation=1+1+2+2+4+4+8+8 --seq-len 512,1024",
        "attnbench run --threads 1,2 --matmul-precision highest,medium --compile off,on",
        "attnbench run --preset standard --profile --out runs/profiled",
        "attnbench run --preset full --shard 1/4 --out runs/part1",
        "attnbench run --preset standard --out runs/today --resume",
        "attnbench run --preset kernels --device cuda --out runs/kernels",
    ],
    "report": ["attnbench report runs/today", "attnbench report runs/a runs/b --out compared"],
    "compare": [
        "attnbench compare runs/before runs/after",
        "attnbench compare runs/before runs/after --markdown",
        "attnbench compare runs/before runs/after --html compared.html",
        "attnbench compare runs/before runs/after --threshold 5 --threshold sdpa=2 "
        "--only mode=forward --only seq-len=1024,4096",
        "attnbench compare runs/before runs/after --confirm --base-from checkouts/before "
        "--out runs/pairs",
    ],
    "recommend": [
        "attnbench recommend --seq-len 8192 --mode training --max-error 0.1",
        "attnbench recommend --seq-len 16384 --mode decode --max-memory 100MB --json",
        "attnbench recommend --seq-len 4096 --mode forward --causal --min-recall 0.9 "
        "--dtype float32 runs/today",
    ],
    "merge": ["attnbench merge runs/part1 runs/part2 --out runs/whole"],
    "export": [
        "attnbench export runs/today --table scaling --format json",
        "attnbench export runs/today --table launches --delimiter tab --decimal ,",
        "attnbench export runs/today --format asv && cd runs/today && asv publish",
    ],
    "check": [
        "attnbench check performer",
        "attnbench check path/to/my_attention.py",
        "attnbench check performer --no-timing --json",
    ],
    "doctor": ["attnbench doctor", "attnbench doctor --json"],
}


def pages() -> dict[Path, str]:
    """Return both pages: a chapter a command, each with its help and examples."""
    group = context_of(cli.main, None, "attnbench")
    parts = {PAGE: [HEAD, _chapter("attnbench", group)], RUN_PAGE: [RUN_HEAD]}
    for name in cli.main.list_commands(group):
        command = cli.main.commands[name]
        own = context_of(command, group, name)
        is_group = isinstance(command, RunGroup)
        place = parts[RUN_PAGE if is_group else PAGE]
        place.append(_chapter(f"attnbench {name}", own, EXAMPLES[name]))
        if isinstance(command, RunGroup):
            suites = [
                context_of(command.get_command(own, suite), own, suite)
                for suite in command.list_commands(own)
            ]
            place.append(_chapter(f"attnbench {name} {USUAL}", suites[0]))
            place += [_apart(f"attnbench {name} {one.info_name}", one) for one in suites[1:]]
    return {page: "\n".join(part) for page, part in parts.items()}


def context_of(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    """Return the context of a command on lines of 96 columns."""
    context = click.Context(command, parent, name, **cli.main.context_settings)
    context.max_content_width = context.terminal_width = 96
    return context


def _apart(title: str, context: click.Context) -> str:
    """Return the help of a suite without the options that say the same of the usual one."""
    command, parent = context.command, context.parent
    assert isinstance(command, SuiteCommand)
    assert parent is not None
    assert isinstance(parent.command, RunGroup)
    usual = parent.command.get_command(parent, USUAL)
    known = {row for rows in usual.records(context).values() for row in rows}
    every = [row for rows in command.records(context).values() for row in rows]
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    with formatter.section("Options"):
        formatter.write_dl([row for row in every if row not in known])
    command.format_epilog(context, formatter)
    same = ", ".join(f"`{term.split()[0].rstrip(',')}`" for term, _ in every if (term, _) in known)
    lines = [f"## {title}", "", "```text", formatter.getvalue().rstrip("\n"), "```", ""]
    return "\n".join([*lines, f"As of `attnbench run {USUAL}`: {same}.", ""])


def _chapter(title: str, context: click.Context, examples: Sequence[str] = ()) -> str:
    """Return a command's help, and its examples if it has none in its help."""
    lines = [f"## {title}", "", "```text", context.command.get_help(context), "```", ""]
    if examples:
        lines += ["```sh", *examples, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
