"""Write the report: one self-contained page, and the same as Markdown with images beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from results.axis_views import axis_tables
from results.captions import TITLES, figure_caption
from results.chapters import Chapter, chapters, machine_name
from results.files import check_within, write_bytes, write_text
from results.load import NoRunError, Run, load
from results.panels import Layout
from results.peer_plots import CAPTION, peer_figure
from results.peer_views import peer_tables
from results.peers import PeerChapter, peer_chapters
from results.plots import FIGURES
from results.provenance import Facts, provenance
from results.series import points
from results.summary import Paragraph, summarise
from results.svg import drawn_png, drawn_svg, inline_svg, png
from results.theme import DARK, LIGHT, PAGE, Theme, css_variables
from results.trust import Trust, trust
from results.trust_plots import CAPTION as TRUST_CAPTION
from results.trust_plots import TITLE as TRUST_FIGURE_TITLE
from results.trust_plots import drift_figure
from results.trust_summary import TITLE as TRUST_TITLE
from results.trust_summary import trust_paragraphs
from results.trust_views import trust_tables
from results.views import TableView, tables

Draw = Callable[[Theme, Layout], Figure | None]

FORMATS = ("html", "md")
FIGURE_FOLDER = "figures"
MOST_DRAWN = 24
"""Series in one figure: more cannot be told apart, and leave no room to draw them."""

_TEMPLATES = Path(__file__).parent / "templates"


class ReportError(ValueError):
    """The report cannot be written as asked; the message names the argument."""


@dataclass(frozen=True)
class Section:
    """A chapter, ready to be shown."""

    chapter: Chapter
    paragraphs: list[Paragraph]
    tables: list[TableView]

    @property
    def title(self) -> str:
        """The setting in words."""
        return self.chapter.title


@dataclass(frozen=True)
class PeerSection:
    """A chapter of peers, ready to be shown."""

    chapter: PeerChapter
    tables: list[TableView]

    @property
    def title(self) -> str:
        """The setting in words."""
        return self.chapter.title


PEER_TITLE = "Other libraries beside ours"


class PageFigure(NamedTuple):
    """A figure of the page: two layouts as SVG."""

    title: str
    caption: str
    wide: str
    narrow: str


class FileFigure(NamedTuple):
    """A figure of the Markdown: two files beside it."""

    title: str
    caption: str
    light: str
    dark: str


def write_report(
    folders: Sequence[str | Path],
    formats: Sequence[str] = FORMATS,
    out: str | Path | None = None,
) -> list[Path]:
    """Write the report of one or several run folders; return the files a reader opens.

    Args:
        folders: run folders; several are shown together, never mixed in a ratio.
        formats: ``html``, ``md`` or both.
        out: a folder, or with one format a file that ends in its name. Without it the
            (first) run's folder, with the names ``report.html`` and ``report.md``. Images of the
            Markdown lie in ``figures`` beside it.

    Raises:
        NoRunError: if a folder holds no run.
        ReportError: if a format is unknown, or `out` does not fit the formats.
        OSError: if a folder cannot be read, or `out` not written.
    """
    if not folders:
        raise NoRunError("DIR: expected at least one run folder")
    targets = _targets(folders, formats, out)
    run = load(*folders)
    sections = [Section(c, summarise(c), tables(c)) for c in chapters(run)]
    peers = [PeerSection(c, peer_tables(c)) for c in peer_chapters(run)]
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "html":
            write_text(path, page(run, sections, peers))
        else:
            _write_markdown(run, sections, peers, path)
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


def page(run: Run, sections: list[Section], peers: list[PeerSection]) -> str:
    """Return the HTML page: no scripts, no network, everything escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    variables = sorted(css_variables().values())
    context = _context(run, sections, peers)
    return environment.get_template("report.html.j2").render(
        **context,
        figures=[list(_page_figures(s.chapter, i, run)) for i, s in enumerate(sections)],
        peer_figures=[_peer_page_figure(s.chapter, i) for i, s in enumerate(peers)],
        trust_figure=_trust_page_figure(context["trust"]),
        light={name: light for name, light, _ in variables},
        dark={name: dark for name, _, dark in variables},
    )


def _context(run: Run, sections: list[Section], peers: list[PeerSection]) -> dict[str, Any]:
    facts: list[Facts] = provenance(run, [s.chapter for s in sections])
    trusted = trust(run)
    machines = [
        machine_name(run.machines.get(m, {})) or "a machine that is not described"
        for m in run.frame["machine"].unique()
    ]
    return {
        "sections": sections,
        "comparisons": axis_tables(points(run)),
        "peers": peers,
        "facts": facts,
        "warnings": (*trusted.warnings, *run.warnings),
        "trust": trusted,
        "trust_title": TRUST_TITLE,
        "trust_paragraphs": trust_paragraphs(trusted),
        "trust_tables": trust_tables(trusted),
        "machines": list(dict.fromkeys(machines)),
        "num_launches": len(run.records),
        "modes": set(run.frame["mode"]),
        "levels": set(run.frame["level"]),
    }


def _caption(name: str, run: Run, chapter: Chapter) -> str:
    """Return a figure's caption, and how many series are drawn where that is not all."""
    series = chapter.points[["backend", "options"]].drop_duplicates()
    told = figure_caption(name, run)
    if len(series) <= MOST_DRAWN:
        return told
    return f"{told} Of {len(series)} series the first {MOST_DRAWN} are drawn."


def _page_figures(chapter: Chapter, index: int, run: Run) -> Iterator[PageFigure]:
    drawn = chapter.first_series(MOST_DRAWN)
    for name, title in TITLES.items():
        wide, narrow = (
            inline_svg(drawn, name, layout, prefix=f"{name}-{layout}-{index}", title=title)
            for layout in ("wide", "narrow")
        )
        if wide:
            yield PageFigure(title, _caption(name, run, chapter), wide, narrow)


def _peer_page_figure(chapter: PeerChapter, index: int) -> PageFigure | None:
    return _page_figure(partial(peer_figure, chapter), f"peers-{{}}-{index}", PEER_TITLE, CAPTION)


def _trust_page_figure(trusted: Trust) -> PageFigure | None:
    draw = partial(drift_figure, trusted)
    return _page_figure(draw, "trust-{}", TRUST_FIGURE_TITLE, TRUST_CAPTION)


def _page_figure(draw: Draw, prefix: str, title: str, caption: str) -> PageFigure | None:
    """Return what `draw` draws in both layouts, whose name stands for {} in `prefix`."""
    wide = drawn_svg(lambda: draw(PAGE, "wide"), prefix=prefix.format("wide"), title=title)
    narrow = drawn_svg(lambda: draw(PAGE, "narrow"), prefix=prefix.format("narrow"), title=title)
    return PageFigure(title, caption, wide, narrow) if wide else None


# -- Markdown ------------------------------------------------------------------------------------


def _write_markdown(
    run: Run, sections: list[Section], peers: list[PeerSection], path: Path
) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,
        finalize=escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _Plain
    figures = [list(_file_figures(s.chapter, i, run, path.parent)) for i, s in enumerate(sections)]
    context = _context(run, sections, peers)
    text = environment.get_template("report.md.j2").render(
        **context,
        figures=figures,
        peer_figures=[_peer_file_figure(s.chapter, i, path.parent) for i, s in enumerate(peers)],
        trust_figure=_trust_file_figure(context["trust"], path.parent),
    )
    write_text(path, text)


def _file_figures(chapter: Chapter, index: int, run: Run, home: Path) -> Iterator[FileFigure]:
    drawn = chapter.first_series(MOST_DRAWN)
    for name in FIGURES:
        files = _write_figures(home, f"{name}-{index + 1}", partial(png, drawn, name))
        if files:
            yield FileFigure(TITLES[name], _caption(name, run, chapter), *files)


def _peer_file_figure(chapter: PeerChapter, index: int, home: Path) -> FileFigure | None:
    draw = partial(peer_figure, chapter)
    return _file_figure(draw, f"peers-{index + 1}", PEER_TITLE, CAPTION, home)


def _trust_file_figure(trusted: Trust, home: Path) -> FileFigure | None:
    draw = partial(drift_figure, trusted)
    return _file_figure(draw, "trust", TRUST_FIGURE_TITLE, TRUST_CAPTION, home)


def _file_figure(draw: Draw, name: str, title: str, caption: str, home: Path) -> FileFigure | None:
    files = _write_figures(home, name, lambda theme: drawn_png(lambda: draw(theme, "wide"), theme))
    return FileFigure(title, caption, *files) if files else None


def _write_figures(
    home: Path, name: str, draw: Callable[[Theme], bytes]
) -> tuple[str, str] | None:
    """Write a figure in light and dark; return the files' names, None for an empty figure."""
    contents = {word: draw(theme) for theme, word in ((LIGHT, "light"), (DARK, "dark"))}
    if not all(contents.values()):
        return None
    check_within(home, home / FIGURE_FOLDER)
    (home / FIGURE_FOLDER).mkdir(exist_ok=True)
    files = {word: f"{FIGURE_FOLDER}/{name}-{word}.png" for word in contents}
    for word, content in contents.items():
        write_bytes(home / files[word], content)
    return files["light"], files["dark"]


_LIST_ITEM = re.compile(r"^(\d{0,9})([-+.)])(?=\s|$)")
"""What begins a list where it begins a line."""


class _Plain(str):
    """Markdown that is meant as Markdown."""


def escape_markdown(value: object) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    if isinstance(value, _Plain):
        return value
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~$#":
        text = text.replace(mark, f"\\{mark}")
    return _LIST_ITEM.sub(r"\1\\\2", text)
