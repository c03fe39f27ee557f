"""What is written in README, CONTRIBUTING and docs: blocks of code, commands, links, headings."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]  # fmt: skip

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code of a page, without its indentation."""

    language: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page, of these languages or of all."""
    found = [Block(b, textwrap.dedent(c)) for _, b, c in FENCE.findall(page.read_text())]
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def command_lines(page: Path) -> list[list[str]]:
    """Return the commands of the shell blocks, as words; ``a && b`` is two, so is ``a | b``."""
    lines = "\n".join(block.text for block in blocks(page, "sh")).replace("\\\n", " ")
    lines = re.sub(r"\$\([^)]*\)", "GIVEN", lines)
    words = [shlex.split(line, comments=True) for line in lines.splitlines()]
    return [part for line in words if line for part in _joined(line)]


def _joined(words: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word in ("&&", "|"):
            yield part
            part = []
        else:
            part.append(word)
    yield part


def named_commands(page: Path, program: str) -> list[list[str]]:
    """Return what sentences name of a program, as words; ``$(…)`` is one word."""
    spans = re.findall(rf"(?<!`)`({program} [^`]+)`", prose(page))
    return [re.sub(r"\$\([^)]*\)", "GIVEN", span).split() for span in spans]


def links(page: Path) -> list[tuple[str, str]]:
    """Return the links within the repository: file ("" = the page itself), anchor ("" = none)."""
    found = re.findall(r"\]\((?![a-z]+:)\s*([^)#\s]*)(?:#([^)\s]+))?\)", prose(page))
    images = re.findall(r'\b(?:src|srcset)="(?![a-z]+:)([^"]+)"', prose(page))
    return [*found, *((image, "") for image in images)]


def anchors(page: Path) -> set[str]:
    """Return what can be linked to: the headings, and on pages of the API what they document."""
    text = prose(page)
    named: set[str] = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        named.add(plain.replace(" ", "-"))
    return named
