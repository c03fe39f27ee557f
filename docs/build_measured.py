"""Put what the reference sweep measured into README.md and docs/performance.md.

python docs/build_measured.py
"""

from __future__ import annotations

import re
from pathlib import Path

from results import format
from results.chapters import Chapter, chapters, machine_name
from results.load import load
from results.report import escape_markdown
from results.summary import summarise
from results.svg import png
from results.theme import DARK, LIGHT
from results.views import TableView, tables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
REFERENCE = ROOT / "results" / "reference" / "epyc-2-cores"
FIGURES = ROOT / "docs" / "figures"
LENGTHS = ("512", "1,024", "2,048", "4,096", "8,192", "16,384")
"""Columns of the README's table: as many as a page is wide."""


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"no marks for {name}"
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def table(view: TableView) -> str:
    """Write the columns of `LENGTHS` as Markdown."""
    keep = [0, *(view.head.index(n) for n in LENGTHS)]
    lines = [
        "| " + " | ".join(view.head[i] for i in keep) + " |",
        "|" + "|".join(" :-- " if i == 0 else " --: " for i in keep) + "|",
    ]
    for row in view.rows:
        cells = (f"{row[i].text} {row[i].small}".strip() for i in keep)
        lines.append("| " + " | ".join(escape_markdown(c) for c in cells) + " |")
    return "\n".join(lines)


def figure(chapter: Chapter, name: str, alt: str, *, write: bool) -> str:
    """Draw a figure for both themes and return what shows it."""
    for theme, word in ((LIGHT, "light"), (DARK, "dark")):
        if write:
            FIGURES.mkdir(exist_ok=True)
            (FIGURES / f"{name}-{word}.png").write_bytes(png(chapter, name, theme))
    return (
        "<picture>\n"
        f'<source media="(prefers-color-scheme: dark)" srcset="docs/figures/{name}-dark.png">\n'
        f'<img alt="{alt}" src="docs/figures/{name}-light.png">\n'
        "</picture>"
    )


def limits(chapter: Chapter) -> str:
    """Write how near the limit each backend runs at the longest length that all have."""
    rows = chapter.limits[chapter.limits["fraction_of_limit"].notna()]
    longest = rows.groupby(["backend", "mode"])["seq_len"].max().min()
    lines = [
        f"At {format.tokens(longest)} tokens:",
        "",
        "| backend | mode | time | limit | bound by | share | tiles | kernel | op/s |",
        "| :-- | :-- | --: | --: | :-- | --: | --: | --: | --: |",
    ]
    for row in rows[rows["seq_len"] == longest].to_dict("records"):
        cells = [
            row["backend"],
            row["mode"],
            format.seconds(row["value"]),
            format.seconds(row["limit"]),
            row["bound"],
            *(
                format.percent(row[c])
                for c in ("fraction_of_limit", "tile_efficiency", "kernel_efficiency")
            ),
            f"{row['achieved_rate'] / 1e9:,.0f}·10⁹",
        ]
        lines.append("| " + " | ".join(escape_markdown(str(c)) for c in cells) + " |")
    return "\n".join(lines)


def peaks(chapter: Chapter) -> str:
    """Write the machine's peaks."""
    shown = {
        "matmul_rate": "matrix products, op/s",
        "exp_rate": "exponentials, 1/s",
        "bandwidth": "bytes, B/s",
    }
    lines = ["| peak | measured |", "| :-- | --: |"]
    lines += [f"| {word} | {chapter.peaks[k] / 1e9:,.1f}·10⁹ |" for k, word in shown.items()]
    return "\n".join(lines)


def reference() -> tuple[Chapter, str]:
    """Return the reference sweep and where it was measured."""
    run = load(REFERENCE)
    (chapter,) = chapters(run)
    (machine,) = run.machines.values()
    return chapter, f"{machine_name(machine)}, {chapter.title}"


def readme(*, write: bool = False) -> str:
    """Return README.md with what the reference says; with `write`, draw its figures too."""
    chapter, where = reference()
    views = {view.title: view for view in tables(chapter)}
    text = README.read_text()
    text = fill(text, "figure", figure(chapter, "time", "Time against length", write=write))
    shown = [
        f"Time per call, forward, with the 95 % interval between launches ({where}):",
        "",
        table(views["Time per call, forward"]),
        "",
        "Peak memory above the inputs, forward:",
        "",
        table(views["Peak memory above the inputs, forward"]),
    ]
    text = fill(text, "table", "\n".join(shown))
    sentences = [
        f"- {escape_markdown(sentence)}"
        for paragraph in summarise(chapter)
        if paragraph.heading == "Forward pass"
        for sentence in paragraph.sentences
    ]
    return fill(text, "summary", "\n".join(sentences))


def performance() -> str:
    """Return docs/performance.md with what the reference says."""
    chapter, where = reference()
    text = fill(PERFORMANCE.read_text(), "where", where)
    text = fill(text, "peaks", peaks(chapter))
    return fill(text, "limits", limits(chapter))


if __name__ == "__main__":
    README.write_text(readme(write=True))
    PERFORMANCE.write_text(performance())
