"""Write docs/cli.md, the reference of the command line, from the command itself.

python docs/build_cli.py
"""

from __future__ import annotations

from pathlib import Path

import click

import cli

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# The command line

<!-- Made from the command by `python docs/build_cli.py`; a test compares. -->

Exit codes: 0 done (a sweep that completes is done, whatever its statuses), 1 not done, 2 misuse
(one line that says what is accepted), 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
`compare` ends with 1 where a case or a whole backend became worse, and with 3 where it could not
measure; `recommend` with 1 where no backend qualifies. [In the shell](shell.md) says how options
and values are completed, and what a terminal and a pipe get.
"""

EXAMPLES = {
    "list": ["attnbench list", "attnbench list --json", "attnbench list --peers"],
    "run": [
        "attnbench run --preset quick --out runs/today",
        "attnbench run --backend full --backend longformer:window=64,dilation=1+1+2+2+4+4+8+8 "
        "--seq-len 512,1024",
        "attnbench run --threads 1,2 --matmul-precision highest,medium --compile off,on",
        "attnbench run --preset standard --profile --out runs/profiled",
        "attnbench run --suite peers --out runs/peers",
        "attnbench run --suite peers --peers linformer,local-attention --allocator default "
        "--seq-len 1024,4096",
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
        "attnbench recommend --seq-len 16384 --mode decode --max-memory 64MB --json",
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


def page() -> str:
    """Return the page: a chapter a command, each with its help and examples."""
    parts = [HEAD, _chapter("attnbench", cli.main, [])]
    for name, command in sorted(cli.main.commands.items()):
        parts.append(_chapter(f"attnbench {name}", command, EXAMPLES[name]))
    return "\n".join(parts)


def _chapter(title: str, command: click.Command, examples: list[str]) -> str:
    parent = click.Context(cli.main, info_name="attnbench", **cli.main.context_settings)
    own = parent if command is cli.main else click.Context(command, parent, title.split()[-1])
    own.max_content_width = own.terminal_width = 96
    shown = command.get_help(own)
    lines = [f"## {title}", "", "```text", shown, "```", ""]
    if examples:
        lines += ["```sh", *examples, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
