"""Turn a figure into an SVG that lives inside a page: its colours, its ids, its fonts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from results.figures.plot_json import panels, remark
from results.figures.plot_words import in_words
from results.figures.theme import DARK, LIGHT, PAGE, css_variables, recolour, styled

Draw = Callable[[], Figure | None]
"""What draws a figure; None where there is nothing to show."""

SVG_DPI = 72
"""Of every SVG that matplotlib writes."""

_FONT = "'DejaVu Sans', Verdana, Geneva, sans-serif"
_NO_TURN = re.compile(r' transform="rotate\(-0 [^)]*\)"')
_LONG_NUMBER = re.compile(r"(?<![\w#.])-?\d+\.\d{3,}(?![\w.])")
_OWN_ID = re.compile(r' id="([^"]*)"')
_TAG = re.compile(r"<[^<>]*>")
_ID = re.compile(r'(\b(?:id|xlink:href)="#?|url\(#)')


class Inline(NamedTuple):
    """A figure for a page: its SVG element, and its panels as data (`marks.panels`)."""

    svg: str
    panels: list[dict[str, Any]]


class Pngs(NamedTuple):
    """A figure as files, and what it shows in words."""

    light: bytes
    dark: bytes
    words: str


class Drawn(NamedTuple):
    """A figure in the forms that were asked for, and what its caption must say besides."""

    inline: Inline | None
    pngs: Pngs | None
    remark: str = ""

    def caption(self, text: str) -> str:
        """Return a caption with the remark."""
        return f"{text} {self.remark}".strip()


def drawn(
    draw: Draw,
    *,
    prefix: str = "figure",
    title: str = "",
    inline: bool = True,
    still: bool = True,
    pngs: bool = False,
) -> Drawn | None:
    """Return what `draw` draws; ``None`` for nothing.

    It is drawn and laid out once, in the theme `PAGE`, whatever is asked for.

    Args:
        draw: makes the figure.
        prefix: begins the ids of its SVG, so that figures on one page do not share them: letters,
            digits and hyphens.
        title: plain text; the text alternative is this and what the figure shows, in words.
        inline: as an SVG element, whose colours are the page's variables
            (`theme.css_variables`) and whose text stays text.
        still: whether that has the element, and not its panels alone.
        pngs: as files, for a light page and a dark one.
    """
    with styled(PAGE, salt=prefix):
        figure = draw()
        if figure is None:
            return None
        element = None
        if inline:
            element = _inline(figure, prefix, title) if still else Inline("", panels(figure))
        said = remark(figure)
    return Drawn(element, _pngs(figure) if pngs else None, said)


def _lay_out(figure: Figure) -> None:
    """Lay a figure out for good, as one of SVG: to save it would draw all of it for that first."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    FigureCanvasSVG(figure)  # becomes what texts are measured by
    before, figure.dpi = figure.dpi, SVG_DPI
    engine.execute(figure)
    figure.dpi = before
    figure.set_layout_engine(None)


def _inline(figure: Figure, prefix: str, title: str) -> Inline:
    _lay_out(figure)
    text = _save(figure, "svg").decode()
    title = alternative(title, figure)
    start = text.index("<svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    text = _slim(text)
    text = _TAG.sub(lambda tag: _in_page(tag.group(), prefix), text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    svg = f'{head} role="img" aria-label="{_attribute(title)}">{rest}'
    return Inline(svg, panels(figure))


def _pngs(figure: Figure) -> Pngs:
    with styled(LIGHT):
        light = _save(figure, "png")
    recolour(figure, {light: dark for _, light, dark in css_variables().values()})
    with styled(DARK):
        return Pngs(light, _save(figure, "png"), in_words(figure))


def alternative(title: str, figure: Figure) -> str:
    """Return a figure's text alternative, computed from what it shows."""
    return f"{title}. {in_words(figure)}".strip()


def _save(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # No date: equal records, equal report.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    figure.set_layout_engine(None)  # where everything lies stays; to lay it out is half the work
    return buffer.getvalue()


def _slim(text: str) -> str:
    """Return an SVG without what no reader sees: a third of it."""
    text = _NO_TURN.sub("", text)
    text = _LONG_NUMBER.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), text)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = _OWN_ID.sub(lambda m: m.group() if _kept(m.group(1), used) else "", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub(r"<g>\n</g>\n", "", text)


def _kept(name: str, used: set[str]) -> bool:
    """Whether an id is pointed at, or names a part of an axis or a panel."""
    return name in used or name.startswith(("axes_", "xtick", "ytick", "legend"))


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
