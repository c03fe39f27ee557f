"""Write the report: one self-contained page, and the same as Markdown with images beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jinja2

from results.analysis.analysis import Analysis
from results.analysis.series import timed_rows
from results.chapters import ReportChapter
from results.chapters.loading import every, has_chapter
from results.figures.svg import Drawn, drawn
from results.page.blocks import Drawing, Layout, Paragraph, Part, TableView
from results.page.frame import TEMPLATES, PageFigure, in_page, render
from results.page.markdown import _attribute, _Plain, escape_markdown
from results.recommendation.page_answers import as_data, groups
from results.records.atomic_write import check_within, write_bytes, write_text
from results.records.load import NoRunError, Run, load
from results.summary.case import Case, case_of
from results.summary.screen import FirstScreen, first_screen
from results.summary.table import READING
from results.summary.text import terminal_text
from results.text.notes import grouped

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
    analysis: Analysis | None = None,
    plugins: Sequence[Path] = (),
) -> list[Path]:
    """Write the report of one or several run folders; return the files a reader opens.

    Args:
        folders: run folders; several are shown together, never mixed in a ratio.
        formats: ``html``, ``md`` or both.
        out: a folder, or with one format a file that ends in its name. Without it the
            (first) run's folder, with the names ``report.html`` and ``report.md``. Images of the
            Markdown lie in ``figures`` beside it.
        analysis: of what the folders hold, where that is loaded already.
        plugins: folders of plug-ins whose ``chapter.py`` shows records of their kinds.

    Raises:
        NoRunError: if a folder holds no run.
        ReportError: if a format is unknown, or `out` does not fit the formats.
        PluginError: if a plug-in has no chapter that can be loaded.
        OSError: if a folder cannot be read, or `out` not written.
    """
    if not folders:
        raise NoRunError("DIR: expected at least one run folder")
    targets = _targets(folders, formats, out)
    analysis = Analysis(load(*folders)) if analysis is None else analysis
    run, book, gallery = analysis.run, _book(analysis, plugins), _Gallery(targets)
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "html":
            write_text(path, _page(run, book, gallery))
        else:
            _write_markdown(book, gallery, path)
    return list(targets.values())


def write_ending(folder: Path, plugins: Sequence[Path], width: int) -> tuple[Path, str]:
    """Write the report of a run that has just ended, into its folder.

    Args:
        folder: of the run.
        plugins: folders of suites; those without a chapter have none.
        width: of the terminal, in columns.

    Returns:
        The page, and what a terminal shows: `summary.text.terminal_text`.

    Raises:
        NoRunError: if nothing was recorded.
        PluginError: if a plug-in's chapter cannot be loaded.
        OSError: if the folder cannot be written.
    """
    analysis = Analysis(load(folder))
    with_chapter = [plugin for plugin in plugins if has_chapter(plugin)]
    page, _ = write_report([folder], analysis=analysis, plugins=with_chapter)
    return page, terminal_text(analysis, width)


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


class _Shown(NamedTuple):
    """A section with its figures as the templates show it."""

    title: str
    lead: str
    paragraphs: Sequence[Paragraph]
    figures: list[_Figure]
    tables: Sequence[TableView]
    facts: Sequence[tuple[str, str]]
    is_setting: bool


class _Tab(NamedTuple):
    """A tab of the first screen's figure."""

    mode: str
    what: str
    figure: PageFigure


class _Book(NamedTuple):
    """Everything that a report shows, in either form."""

    first: FirstScreen
    parts: list[Part]
    context: dict[str, Any]


def _book(analysis: Analysis, plugins: Sequence[Path]) -> _Book:
    run = analysis.run
    chapters, broken = every(plugins)
    made = [(chapter, chapter.part(analysis)) for chapter in chapters]
    parts = [part for _, part in made if part is not None and part.sections]
    first = first_screen(analysis, parts)
    warnings = [*broken, *_not_shown(run, chapters), *run.incomplete]
    warnings += [*(w for part in parts for w in part.warnings), *run.warnings]
    timed = timed_rows(run.frame)
    context = {
        "first": first,
        "reading": READING,
        "case": _case(analysis, first),
        "warnings": grouped(warnings),
        "absent": [chapter.absent for chapter, part in made if part is None and chapter.absent],
        "method": [chapter.method for chapter, part in made if part and chapter.method],
        "modes": set(timed["mode"]),
        "levels": set(timed["level"]),
    }
    return _Book(first, parts, context)


def _case(analysis: Analysis, first: FirstScreen) -> Case | None:
    """Return the panel that answers for a length; None where no call was timed."""
    if not first.views:
        return None
    return case_of(as_data(groups(analysis.run, analysis.points)), first.length)


def _not_shown(run: Run, chapters: Sequence[ReportChapter]) -> list[str]:
    """Say of which kinds there are records that no chapter shows."""
    known = {kind for chapter in chapters for kind in chapter.kinds}
    counts = Counter(record["case"]["kind"] for record in run.records)
    return [
        f"{count:,} record{'s'[: count != 1]} of kind {kind} stand{'s'[: count == 1]} in the "
        "table of every case alone: no chapter shows them; give the folder of the plug-in that "
        "measured them as --plugin FOLDER"
        for kind, count in counts.items()
        if kind not in known
    ]


def _page(run: Run, book: _Book, gallery: _Gallery) -> str:
    tabs = [
        _Tab(view.mode, what, figure)
        for view in book.first.views
        for what, drawing in view.figures.items()
        if (figure := gallery.in_tab(drawing)) is not None
    ]
    shown = {**_shown(book, gallery.in_page), "tabs": tabs}
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
    show = partial(gallery.in_files, home=path.parent)
    leading = [d for view in book.first.views for d in view.figures.values()][:1]
    figures = [figure for d in leading if (figure := show(d, 0)) is not None]
    shown = {**_shown(book, show), "leading": figures}
    write_text(path, environment.get_template("report.md.j2").render(**shown))


def _shown(book: _Book, show: Callable[[Drawing, int], _Figure | None]) -> dict[str, Any]:
    """Return what the templates show: parts by their layout, sections with their figures."""

    def figures(drawings: Sequence[Drawing], number: int) -> list[_Figure]:
        found = (show(drawing, number) for drawing in drawings)
        return [figure for figure in found if figure is not None]

    def sections(part: Part) -> list[_Shown]:
        # What has no title is alone, and its figures have no number.
        return [
            _Shown(s.title, s.lead, s.paragraphs, figures(s.drawings, number if s.title else 0),
                   s.tables, s.facts, s.is_setting)
            for number, s in enumerate(part.sections, 1)
        ]  # fmt: skip

    layouts = {name: [p for p in book.parts if p.layout == name] for name in get_args(Layout)}
    spread = [section for part in layouts.pop("spread") for section in sections(part)]
    by_part = {
        name: [{**vars(part), "sections": sections(part)} for part in parts]
        for name, parts in layouts.items()
    }
    return {**book.context, "spread": spread, **by_part}


class _Gallery:
    """The figures of a report, each drawn once for all its formats.

    Args:
        formats: that are written.
    """

    def __init__(self, formats: Collection[str]) -> None:
        self._formats = formats
        self._drawn: dict[str, Drawn | None] = {}
        self._has_still = False

    def in_page(self, drawing: Drawing, number: int) -> PageFigure | None:
        """Return a figure of the page; None for an empty one."""
        name = f"{drawing.name}-{number}"
        made = self._of(drawing, name)
        return None if made is None else in_page(drawing, name, made)

    def in_tab(self, drawing: Drawing) -> PageFigure | None:
        """Return a figure of the first screen: the first with its still, others for scripts."""
        if not self._has_still:
            self._has_still = True
            return self.in_page(drawing, 0)
        name = f"{drawing.name}-0"
        made = drawn(drawing.draw, prefix=name, title=drawing.title, still=False)
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
