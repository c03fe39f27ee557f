"""Turn a figure into an SVG that lives inside a page: its colours, its ids, its fonts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from matplotlib.figure import Figure

from results.chapters import Chapter
from results.panels import Layout
from results.plots import FIGURES
from results.theme import PAGE, Theme, css_variables, styled

Draw = Callable[[], Figure | None]

_FONT = "'DejaVu Sans', Verdana, Geneva, sans-serif"
_TAG = re.compile(r"<[^<>]*>")
_ID = re.compile(r'(\b(?:id|xlink:href)="#?|url\(#)')


def inline_svg(chapter: Chapter, figure: str, layout: Layout, *, prefix: str, title: str) -> str:
    """Return a figure as an SVG element for a page, or "" where there is nothing to show.

    Its colours are the page's variables (`theme.css_variables`), its text stays text and its
    ids begin with `prefix`, so that figures on one page do not share them.

    Args:
        chapter: what is drawn.
        figure: a name of `plots.FIGURES`.
        layout: wide or narrow.
        prefix: letters, digits and hyphens.
        title: what the figure shows, for screen readers; plain text.
    """
    return drawn_svg(lambda: FIGURES[figure](chapter, PAGE, layout), prefix=prefix, title=title)


def drawn_svg(draw: Draw, *, prefix: str, title: str) -> str:
    """Return what `draw` draws in the theme `PAGE` as an SVG element, as `inline_svg` does."""
    with styled(PAGE, salt=prefix):
        drawn = draw()
        if drawn is None:
            return ""
        text = _save(drawn, "svg").decode()
    start = text.index("<svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    text = _TAG.sub(lambda tag: _in_page(tag.group(), prefix), text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_attribute(title)}">{rest}'


def png(chapter: Chapter, figure: str, theme: Theme) -> bytes:
    """Return a figure as a PNG in the wide layout, or b"" where there is nothing to show."""
    return drawn_png(lambda: FIGURES[figure](chapter, theme, "wide"), theme)


def drawn_png(draw: Draw, theme: Theme) -> bytes:
    """Return what `draw` draws in `theme` as a PNG, or b"" where there is nothing to show."""
    with styled(theme):
        drawn = draw()
        return b"" if drawn is None else _save(drawn, "png")


def _save(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # No date: equal records, equal report.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _in_page(tag: str, prefix: str) -> str:
    tag = _ID.sub(lambda m: f"{m.group(1)}{prefix}-", tag)
    tag = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'[^;\"]*", rf"\1{_FONT}", tag)
    return _replace_colors(tag)


def _replace_colors(tag: str) -> str:
    def variable(match: re.Match[str]) -> str:
        known = css_variables().get(match.group().lower())
        return f"var({known[0]})" if known else match.group()

    found: Callable[[re.Match[str]], str] = variable
    return re.sub(r"#[0-9a-fA-F]{6}\b", found, tag)


def _attribute(text: str) -> str:
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, safe)
    return text
