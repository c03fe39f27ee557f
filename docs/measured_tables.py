"""What the pages of docs/ show of the reference runs: runs read once, and tables as Markdown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from results.analysis.analysis import Analysis
from results.analysis.series import points
from results.analysis.warm_up import MARK, NOTE
from results.chapters.peers.rows import comparisons
from results.chapters.speed.rows import Chapter, chapters
from results.chapters.speed.tables import tables
from results.page.blocks import Cell, TableView
from results.page.markdown import escape_markdown
from results.records.frames import as_rows
from results.records.load import Run, load
from results.schema import ALLOCATORS, CALL_MODES
from results.text import numbers
from results.text.modes import WORDS
from results.text.settings import machine_name

UNSUPPORTED = numbers.STATUS_WORDS.get("unsupported", "unsupported")

LEFT_OUT = ("remark", "tokens/s")
"""Columns that only a report has: a page has no room for them."""

_CHAPTERS: dict[int, list[Chapter]] = {}
"""By the identity of a run that `loaded` keeps."""


@cache
def loaded(*folders: Path) -> Run:
    """Read run folders, once each."""
    return load(*folders)


def chaptered(run: Run) -> list[Chapter]:
    """Return the chapters of a loaded run, made once."""
    if id(run) not in _CHAPTERS:
        _CHAPTERS[id(run)] = chapters(Analysis(run))
    return _CHAPTERS[id(run)]


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"no marks for {name}"
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def noted(text: str) -> str:
    """Say once on a page what its mark of times means that may be too long."""
    return fill(text, "note", NOTE) if f" {MARK}" in text.replace(NOTE, "") else text


def titles(mode: str, *, memory: bool = True) -> list[str]:
    """Return the titles of the tables of times, and of memory, of a mode."""
    words = WORDS[mode]
    named = [words.call, *([words.memory_title] if memory else [])]
    return [f"{what}, {mode}" for what in named]


def views_of(chapter: Chapter, *wanted: str) -> list[TableView]:
    """Return a chapter's tables whose titles begin so, in this order.

    Raises:
        LookupError: if none of the chapter's tables has such a title.
    """
    every = tables(chapter)
    found = [view for title in wanted for view in every if view.title.startswith(title)]
    if not found:
        raise LookupError(f"no table {wanted}; there are {[view.title for view in every]}")
    return found


def written(row: list[Cell]) -> list[str]:
    """Write a row's cells."""
    return [f"{cell.text} {cell.small}".strip() for cell in row]


def ran(view: TableView) -> list[list[str]]:
    """Write the rows of a table, but for backends that this machine cannot run."""
    return [
        written(row) for row in view.rows if UNSUPPORTED not in row[view.text_columns].text
        and not any("nothing was measured" in cell.text for cell in row)
    ]  # fmt: skip


def some_columns(view: TableView, names: tuple[str, ...]) -> str:
    """Write a table's first column and these others as Markdown."""
    keep = [0, *(view.head.index(name) for name in names)]
    rows = [[row[i] for i in keep] for row in ran(view)]
    return markdown_rows([view.head[i] for i in keep], rows, 1)


def whole(view: TableView, *, of_speed: bool = False) -> str:
    """Write a table as Markdown, its columns without any content left out.

    Args:
        view: the table.
        of_speed: leave out the backends that this machine cannot run, and `LEFT_OUT`.
    """
    rows = ran(view) if of_speed else [written(row) for row in view.rows]
    keep = [
        i for i, name in enumerate(view.head)
        if any(row[i] not in ("", numbers.NONE) for row in rows)
        and not (of_speed and name in LEFT_OUT)
    ]  # fmt: skip
    head = [view.head[i] for i in keep]
    return markdown_rows(head, [[row[i] for i in keep] for row in rows], view.text_columns)


def titled(views: list[TableView], *, of_speed: bool = False) -> str:
    """Write tables under their titles."""
    return "\n\n".join(f"{view.title}:\n\n{whole(view, of_speed=of_speed)}" for view in views)


def with_notes(views: list[TableView]) -> str:
    """Write tables under their titles, and below them what is to be known of them."""
    notes = dict.fromkeys(escape_markdown(note) for view in views for note in view.notes)
    said = "\n".join(f"- {note}" for note in notes)
    return "\n\n".join(part for part in (titled(views), said) if part)


def from_chapters(run: Run, *wanted: str) -> str:
    """Write the tables whose titles begin so, setting by setting, without further settings."""
    return "\n\n".join(
        f"**{chapter.title}**\n\n{titled(views_of(chapter, *wanted), of_speed=True)}"
        for chapter in chaptered(run)
        if not (chapter.setting["compile"] or chapter.setting["checkpointing"])
    )


def without(view: TableView, *columns: str) -> TableView:
    """Return a table without columns, as far as it has them."""
    keep = [i for i, name in enumerate(view.head) if name not in columns]
    rows = [[row[i] for i in keep] for row in view.rows]
    dropped = sum(i not in keep for i in range(view.text_columns))
    head = [view.head[i] for i in keep]
    return replace(view, head=head, rows=rows, text_columns=view.text_columns - dropped)


def with_rows(view: TableView, column: str, has: str) -> TableView:
    """Return a table with the rows alone whose cell in a column holds these words."""
    at = view.head.index(column)
    return replace(view, rows=[row for row in view.rows if has in row[at].text])


def beside(run: Run) -> str:
    """Write how many times as long each peer takes as our counterpart, a row a pair."""
    rows = comparisons(run)
    rows = rows[rows["status"] == "ok"]
    columns = [(mode, allocator) for mode in CALL_MODES for allocator in ALLOCATORS]
    shown = []
    pairs = rows.groupby(["backend", "peer", "is_causal"], sort=False)
    for (backend, peer, causal), part in pairs:
        found = {(r["mode"], r["allocator"]): r for r in as_rows(part)}
        cells = [f"{backend}, causal" if causal else backend, peer]
        for at in columns:
            row = found.get(at)
            alone = row is not None and math.isfinite(row["attention_ratio"])
            ratio = row["attention_ratio" if alone else "ratio"] if row is not None else math.nan
            cells.append(f"{ratio:.2f}" if math.isfinite(ratio) else numbers.NONE)
        shown.append(cells)
    return markdown_rows(["ours", "beside", *(f"{m}, {a}" for m, a in columns)], shown, 2)


def by_dtype(run: Run) -> str:
    """Write each backend's time and memory in bfloat16 beside float32, on all threads."""
    rows = points(run)
    rows = rows[(rows["threads"] == rows["threads"].max()) & ~rows["compile"]]
    rows = rows[rows["matmul_precision"] == "highest"]
    keys = ["backend", "mode", "is_causal", "seq_len"]
    wide = rows.pivot_table("value", keys, ["metric", "dtype"], sort=False)
    shown = []
    for (backend, mode, causal, length), row in wide.iterrows():
        time, memory = row["latency"], row["peak_memory"]
        cells = [
            f"{backend}, causal" if causal else backend,
            mode,
            numbers.tokens(length),
            numbers.seconds(time["float32"]),
            numbers.seconds(time["bfloat16"]),
            f"{time['float32'] / time['bfloat16']:.2f} ×",
            f"{memory['bfloat16'] / memory['float32']:.2f} ×",
        ]
        shown.append(cells)
    head = ["backend", "mode", "tokens", "float32", "bfloat16", "speed-up", "memory"]
    return markdown_rows(head, shown, 2)


def by_kernel(run: Run) -> str:
    """Write the time and memory of kernel=compiled beside those of the default kernels."""
    wide = points(run).pivot_table(
        "value", ["backend", "mode", "seq_len"], ["metric", "options"], sort=False
    )
    shown = []
    for (backend, mode, length), row in wide.iterrows():
        time, memory = row["latency"], row["peak_memory"]
        cells = [
            backend,
            mode,
            numbers.tokens(length),
            numbers.seconds(time[""]),
            numbers.seconds(time["kernel=compiled"]),
            f"{time[''] / time['kernel=compiled']:.2f} ×",
            f"{memory['kernel=compiled'] / memory['']:.2f} ×",
        ]
        shown.append(cells)
    head = ["backend", "mode", "tokens", "default", "compiled", "speed-up", "memory"]
    return markdown_rows(head, shown, 2)


LIMITS = {
    "fraction_of_limit": "% of peak",
    "fraction_of_torch": "of torch's peak",
    "tile_efficiency": "tiles",
    "kernel_efficiency": "kernel",
}
"""Columns of a chapter's limits, to what they are called here."""


def limits(chapter: Chapter) -> str:
    """Write how near the roofline each backend runs at the longest length that all have."""
    rows = chapter.limits[chapter.limits["fraction_of_limit"].notna()]
    longest = rows.groupby(["backend", "mode"])["seq_len"].max().min()
    shown = [
        [
            row["backend"], row["mode"], numbers.seconds(row["value"]),
            numbers.seconds(row["limit"]), *(numbers.percent(row[c]) for c in LIMITS),
            f"{row['achieved_rate'] / 1e9:,.0f}",
        ]
        for row in as_rows(rows[rows["seq_len"] == longest])
    ]  # fmt: skip
    head = ["backend", "mode", "time", "roofline", *LIMITS.values(), "GFLOP/s"]
    return f"At {numbers.tokens(longest)} tokens:\n\n{markdown_rows(head, shown, 2)}"


PEAKS = {
    "matmul_rate": ("matrix products", "GFLOP/s"),
    "torch_matmul_rate": ("matrix products as torch runs them", "GFLOP/s"),
    "exp_rate": ("exponentials", "billions a second"),
    "bandwidth": ("memory", "GB/s"),
}
"""The machine's peaks, to their names and units here."""


def peaks(chapter: Chapter) -> str:
    """Write the machine's peaks."""
    rows = [
        [word, f"{chapter.peaks[key] / 1e9:,.1f} {unit}"] for key, (word, unit) in PEAKS.items()
    ]
    return markdown_rows(["peak", "measured"], rows, 1)


def markdown_rows(head: list[str], rows: list[list[str]], text_columns: int) -> str:
    """Write a table as Markdown."""
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(" :-- " if i < text_columns else " --: " for i in range(len(head))) + "|",
    ]
    lines += ["| " + " | ".join(escape_markdown(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def on_machine(run: Run) -> str:
    """Return where a run of one machine was measured."""
    (machine,) = run.machines.values()
    return f"On an {machine_name(machine)}, {machine['cores']} cores:"
