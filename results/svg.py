"""Turn a figure into an SVG that lives inside a page: its colours, its ids, its fonts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from results import marks
from results.theme import PAGE, Theme, css_variables, styled

Draw = Callable[[], Figure | None]

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


def drawn_svg(draw: Draw, *, prefix: str, title: str) -> Inline:
    """Return what `draw` draws in the theme `PAGE`, as an SVG element; empty for nothing.

    Its colours are the page's variables (`theme.css_variables`), its text stays text and its
    ids begin with `prefix`, so that figures on one page do not share them.

    Args:
        draw: makes the figure.
        prefix: letters, digits and hyphens.
        title: plain text; the text alternative is this and what the figure shows, in words.
    """
    with styled(PAGE, salt=prefix):
        drawn = draw()
        if drawn is None:
            return Inline("", [])
        text = _save(drawn, "svg").decode()
        title = alternative(title, drawn)
        panels = marks.panels(drawn)
    start = text.index("<svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    text = _slim(text)
    text = _TAG.sub(lambda tag: _in_page(tag.group(), prefix), text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return Inline(f'{head} role="img" aria-label="{_attribute(title)}">{rest}', panels)


def alternative(title: str, figure: Figure) -> str:
    """Return a figure's text alternative, computed from what it shows."""
    return f"{title}. {marks.in_words(figure)}".strip()


class Png(NamedTuple):
    """A figure as a file, and what it shows in words; both empty where there is nothing."""

    content: bytes
    words: str


def drawn_png(draw: Draw, theme: Theme) -> Png:
    """Return what `draw` draws in `theme`."""
    with styled(theme):
        drawn = draw()
        return Png(b"", "") if drawn is None else Png(_save(drawn, "png"), marks.in_words(drawn))


def _save(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # No date: equal records, equal report.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
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
