"""Standard output: dressed on a terminal, plain lines in a pipe or a file.

What a program reads stays as it is: without a terminal no colour, no width, no drawn table.
``NO_COLOR`` takes the colours away, ``TERM=dumb`` all of the dress.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from suites.terminal.progress import printable
from suites.terminal.stream import Stream

NARROWEST = 40
"""Columns that a table takes at least: a terminal that has fewer breaks its lines itself."""


class Page:
    """What a command says on standard output.

    Attributes:
        is_live: whether that is a terminal.
    """

    def __init__(self) -> None:
        self._stream = Stream(sys.stdout)
        self.is_live = self._stream.is_terminal() and os.environ.get("TERM") != "dumb"
        self._colour = self.is_live and not os.environ.get("NO_COLOR")
        self._width = max(NARROWEST, shutil.get_terminal_size().columns)

    def write(self, text: str) -> None:
        """Write a text as it is."""
        self._stream.write(text)

    def line(self, text: str, *, label: str = "", indent: int = 0, **style: Any) -> None:
        """Write a line; on a terminal it is broken between words, its rest set in further.

        Args:
            text: the line.
            label: what stands before it; dim on a terminal.
            indent: columns before both.
            **style: of the text, in the words of `click.style`.
        """
        if not self.is_live:
            self.write(f"{' ' * indent}{label}{text}\n")
            return
        whole = textwrap.wrap(
            printable(label + text), self._width, initial_indent=" " * indent,
            subsequent_indent=" " * (indent + 4), break_long_words=False, break_on_hyphens=False,
        ) or [""]  # fmt: skip
        head = len(whole[0]) - len(whole[0].lstrip()) + len(label)
        whole[0] = self._dressed(whole[0][:head], dim=True) + self._dressed(
            whole[0][head:], **style
        )
        rest = [self._dressed(line, **style) for line in whole[1:]]
        self.write("\n".join([whole[0], *rest]) + "\n")

    def emphasised(self, text: str, starts: tuple[str, ...]) -> str:
        """Return a text whose lines that start so are bold, on a terminal."""
        return "".join(
            self._dressed(line.rstrip("\n"), bold=True) + "\n" if line.startswith(starts) else line
            for line in text.splitlines(keepends=True)
        )

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        styles: Mapping[int, str],
    ) -> None:
        """Write a table for a terminal: it keeps to the width, and cells go on below.

        Args:
            head: of the columns; one without a cell is left out.
            rows: their cells, the first of each with something in it.
            styles: row to how its first cell is shown, in rich's words.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD if self._has_lines() else box.ASCII, pad_edge=False)
        filled = [i for i in range(len(head)) if any(row[i] for row in rows)]
        for i in filled:
            table.add_column(head[i], overflow="fold", no_wrap=i == 0)
        for position, row in enumerate(rows):
            first, *others = (printable(row[i]) for i in filled)
            # A text, never markup: a name may hold brackets.
            table.add_row(Text(first, styles.get(position, "")), *map(Text, others))
        drawn = io.StringIO()
        Console(
            file=drawn, force_terminal=True, width=self._width, highlight=False,
            color_system="standard" if self._colour else None, legacy_windows=False,
        ).print(table)  # fmt: skip
        lines = (line.rstrip() for line in drawn.getvalue().splitlines())
        self.write("\n".join(lines).strip("\n") + "\n")

    def _has_lines(self) -> bool:
        return (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")

    def _dressed(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colour and style and text else text
