"""Write the report: one self-contained page, and the same as Markdown with images beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from results.analysis.series import points
from results.chapters.cases.tables import case_sections
from results.chapters.claims.chapter import claims_part
from results.chapters.context_parallel.chapter import context_part
from results.chapters.environment.facts import provenance
from results.chapters.error.chapter import error_part
from results.chapters.peers.tables import peer_part
from results.chapters.quality.chapter import task_part
from results.chapters.quantized.chapter import quantized_part
from results.chapters.settings.tables import axis_tables
from results.chapters.speed.chapter import Chapter, chapters
from results.chapters.speed.figures import FIGURES
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.chapters.trust.rows import trust
from results.chapters.trust.tables import trust_section
from results.figures.captions import TITLES, figure_caption
from results.figures.svg import Drawn, drawn
from results.page.blocks import MOST_DRAWN, Drawing, Part, Section
from results.page.frame import TEMPLATES, PageFigure, in_page, render
from results.page.markdown import _attribute, _Plain, escape_markdown
from results.recommendation.page_answers import Group, as_data, groups
from results.recommendation.page_answers import tables as answer_tables
from results.records.atomic_write import check_within, write_bytes, write_text
from results.records.load import NoRunError, Run, load, machine_names
from results.text.notes import MOST, grouped
from results.text.settings import machine_name

FORMATS = ("html", "md")
FIGURE_FOLDER = "figures"


class ReportError(ValueError):
    """The report cannot be written as asked; the message names the argument."""


class FileFigure(NamedTuple):
    """A figure of the Markdown: two files beside it."""

    title: str
    caption: str
    light: str
    dark: str
    words: str


_Figure = PageFigure | FileFigure


def write_report(
    folders: Sequence[str | Path],
    formats: Sequence[str] = FORMATS,
    out: str | Path | None = None,
    *,
    run: Run | None = None,
) -> list[Path]:
    """Write the report of one or several run folders; return the files a reader opens.

    Args:
        folders: run folders; several are shown together, never mixed in a ratio.
        formats: ``html``, ``md`` or both.
        out: a folder, or with one format a file that ends in its name. Without it the
            (first) run's folder, with the names ``report.html`` and ``report.md``. Images of the
            Markdown lie in ``figures`` beside it.
        run: what the folders hold, where that is loaded already.

    Raises:
        NoRunError: if a folder holds no run.
        ReportError: if a format is unknown, or `out` does not fit the formats.
        OSError: if a folder cannot be read, or `out` not written.
    """
    if not folders:
        raise NoRunError("DIR: expected at least one run folder")
    targets = _targets(folders, formats, out)
    run = load(*folders) if run is None else run
    book, gallery = _book(run), _Gallery(targets)
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "html":
            write_text(path, _page(run, book, gallery))
        else:
            _write_markdown(book, gallery, path)
    return list(targets.values())


def _targets(
    folders: Sequence[str | Path], formats: Sequence[str], out: str | Path | None
) -> dict[str, Path]:
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        got = repr(unknown[0]) if unknown else "none"
        raise ReportError(f"format: expected {' or '.join(FORMATS)}, got {got}")
    path = Path(folders[0] if out is None else out)
    if path.suffix in (".html", ".md") and not path.is_dir():
        if list(formats) != [path.suffix[1:]]:
            raise ReportError(
                f"out: {path} is one file; expected --format {path.suffix[1:]} alone or a folder"
            )
        return {path.suffix[1:]: path}
    if path.exists() and not path.is_dir():
        raise ReportError(f"out: {path} is a file; expected a folder or a name in .html or .md")
    return {f: path / f"report.{f}" for f in dict.fromkeys(formats)}


class _Book(NamedTuple):
    """Everything that a report shows, in either form."""

    speed: list[Section]
    parts: list[Part]
    cases: list[Section]
    which: list[Group]
    trust: Section
    context: dict[str, Any]


def _book(run: Run) -> _Book:
    table = points(run)
    found = chapters(run, table)
    trusted = trust(run)
    speed = [_speed_section(chapter, run) for chapter in found]
    every = (peer_part(run), *quality_parts(run), context_part(run), claims_part(run))
    parts = [part for part in every if part.sections]
    machines = [
        machine_name(run.machines.get(m, {})) or "a machine that is not described"
        for m in run.frame["machine"].unique()
    ]
    which = groups(run, table)
    timed = run.frame[run.frame["kind"].isin(("speed", "peer"))]
    context = {
        "sections": speed,
        "parts": parts,
        "comparisons": axis_tables(table, machine_names(run)),
        "which_tables": answer_tables(which),
        "facts": provenance(run, found),
        "warnings": grouped([*run.incomplete, *trusted.warnings, *run.warnings]),
        "most_warnings": MOST,
        "machines": list(dict.fromkeys(machines)),
        "num_launches": len(run.records),
        "kinds": set(run.frame["kind"]),
        "modes": set(timed["mode"]),
        "levels": set(timed["level"]),
    }
    cases = case_sections(run, found)
    return _Book(speed, parts, cases, which, trust_section(trusted), context)


def _speed_section(chapter: Chapter, run: Run) -> Section:
    drawn = chapter.first_series(MOST_DRAWN)
    drawings = [
        Drawing(name, TITLES[name], _caption(name, run, chapter), partial(draw, drawn))
        for name, draw in FIGURES.items()
    ]
    return Section(
        chapter.title, paragraphs=summarise(chapter), drawings=drawings, tables=tables(chapter)
    )


def _caption(name: str, run: Run, chapter: Chapter) -> str:
    """Return a figure's caption, and how many series are drawn where that is not all."""
    series = chapter.points[["backend", "options"]].drop_duplicates()
    told = figure_caption(name, run)
    if len(series) <= MOST_DRAWN:
        return told
    return f"{told} Of {len(series)} series the first {MOST_DRAWN} are drawn."


def page(run: Run) -> str:
    """Return the HTML page of a run."""
    return _page(run, _book(run), _Gallery(["html"]))


def _page(run: Run, book: _Book, gallery: _Gallery) -> str:
    shown = {**_shown(book, gallery.in_page), "answers": as_data(book.which)}
    return render("report.html.j2", shown, run.frame)


def _write_markdown(book: _Book, gallery: _Gallery, path: Path) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,
        finalize=escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _Plain
    environment.filters["attribute"] = _attribute
    shown = _shown(book, partial(gallery.in_files, home=path.parent))
    write_text(path, environment.get_template("report.md.j2").render(**shown))


def _shown(book: _Book, show: Callable[[Drawing, int], _Figure | None]) -> dict[str, Any]:
    """Return what the templates show: sections with their figures, those that are not empty."""

    def figures(section: Section, number: int) -> list[_Figure]:
        shown = (show(drawing, number) for drawing in section.drawings)
        return [figure for figure in shown if figure is not None]

    return {
        **book.context,
        "figures": [figures(section, i) for i, section in enumerate(book.speed, 1)],
        "part_figures": {
            part.name: [figures(section, i) for i, section in enumerate(part.sections, 1)]
            for part in book.parts
        },
        "cases": book.cases,
        "trust": book.trust,
        "trust_figures": figures(book.trust, 0),
    }


class _Gallery:
    """The figures of a report, each drawn once for all its formats.

    Args:
        formats: that are written.
    """

    def __init__(self, formats: Collection[str]) -> None:
        self._formats = formats
        self._drawn: dict[str, Drawn | None] = {}

    def in_page(self, drawing: Drawing, number: int) -> PageFigure | None:
        """Return a figure of the page; None for an empty one."""
        name = f"{drawing.name}-{number}"
        made = self._of(drawing, name)
        return None if made is None else in_page(drawing, name, made)

    def in_files(self, drawing: Drawing, number: int, home: Path) -> FileFigure | None:
        """Write a figure in light and dark; None for an empty one. Number 0 stands in no name."""
        made = self._of(drawing, f"{drawing.name}-{number}")
        if made is None or made.pngs is None:
            return None
        check_within(home, home / FIGURE_FOLDER)
        (home / FIGURE_FOLDER).mkdir(exist_ok=True)
        name = f"{drawing.name}-{number}" if number else drawing.name
        light, dark = (f"{FIGURE_FOLDER}/{name}-{word}.png" for word in ("light", "dark"))
        write_bytes(home / light, made.pngs.light)
        write_bytes(home / dark, made.pngs.dark)
        caption = made.caption(drawing.caption)
        return FileFigure(drawing.title, caption, light, dark, made.pngs.words)

    def _of(self, drawing: Drawing, name: str) -> Drawn | None:
        if name not in self._drawn:
            self._drawn[name] = drawn(
                drawing.draw, prefix=name, title=drawing.title,
                inline="html" in self._formats, pngs="md" in self._formats,
            )  # fmt: skip
        return self._drawn[name]


# -- Markdown ------------------------------------------------------------------------------------


def quality_parts(run: Run) -> list[Part]:
    """Return the parts, those without sections too."""
    return [task_part(run), error_part(run), quantized_part(run)]
