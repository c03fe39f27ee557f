"""The panels of a figure as the page's script reads them: its interactive twin."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.analysis import warm_up
from results.figures.plot_data import Shown, recorded
from results.figures.plot_words import Words, has_names, panel_in_words
from results.figures.theme import Look, css_variables

DIGITS = 5
"""Significant digits of a position on the page."""


def panels(figure: Figure) -> list[dict[str, Any]]:
    """Return the panels of a figure as the page's script reads them; those with a series."""
    return [_panel(ax, shown) for ax, shown in recorded(figure) if shown.lines or shown.bars]


def remark(figure: Figure) -> str:
    """Return what must be said of a figure beside its caption; "" for nothing."""
    lines = (line for _, shown in recorded(figure) for line in shown.lines)
    return warm_up.HOLLOW if any(p.hollow for line in lines for p in line.points) else ""


def _panel(ax: Axes, shown: Shown) -> dict[str, Any]:
    words = Words(ax, shown)
    return {
        "title": ax.get_title(loc="left") or ax.get_title(),
        "words": panel_in_words(ax, shown),
        "x": _axis(ax.xaxis, shown),
        "y": _axis(ax.yaxis, shown),
        "series": [
            {
                "backend": line.backend, "name": line.name,
                "note": shown.notes.get(line.name, ""), "joined": line.joined,
                "across": line.across, **_look(line.look),
                "points": [
                    [*map(_rounded, (p.x, p.y, p.low, p.high)), words.of(p, line), p.tag,
                     int(p.ringed), int(p.hollow)]
                    for p in line.points
                ],
            }
            for line in shown.lines
        ],
        "failed": [
            {"backend": f.backend, "name": f.name, "x": f.x, "words": f.words, **_look(f.look)}
            for f in shown.failed
        ],
        "rules": [
            {"words": r.words, **({"y": r.y} if math.isfinite(r.y) else {"x": r.x})}
            for r in shown.rules
        ],
        "paths": [
            {"points": [list(map(_rounded, point)) for point in p.points],
             "color": _color(p.look.light) if p.look else "var(--ink)", "steps": p.in_steps,
             "words": p.words, "place": p.place and list(map(_rounded, p.place))}
            for p in shown.paths
        ],
        "bands": [
            {"low": _rounded(b.low), "high": _rounded(b.high), "words": b.words}
            for b in shown.bands
        ],
        "ends": shown.is_named_at_ends,
        "legend": ax.get_legend() is not None,
        "bars": [
            {"backend": b.backend, "name": b.name, "part": b.part, "row": b.row,
             "start": _rounded(b.start), "end": _rounded(b.end), "words": b.words,
             "color": _color(b.light)}
            for b in shown.bars
        ],
    }  # fmt: skip


def _axis(axis: Any, shown: Shown) -> dict[str, Any]:
    low, high = (float(bound) for bound in axis.get_view_interval())
    ends = sorted((low, high))
    ticks = [float(t) for t in axis.get_major_locator()() if ends[0] <= t <= ends[1]]
    write = axis.get_major_formatter()
    texts = write.format_ticks(ticks)
    return {
        "label": axis.get_label_text(),
        "scale": "log" if axis.get_scale() == "log" else "linear",
        "kind": shown.kinds.get(axis.axis_name, "names" if has_names(texts) else "number"),
        "ends": [_rounded(low), _rounded(high)],
        "ticks": [[_rounded(t), text] for t, text in zip(ticks, texts, strict=True)],
    }


def _look(look: Look) -> dict[str, Any]:
    dashes = " ".join(f"{d:g}" for d in look.dashes) if look.dashes else ""
    return {"color": _color(look.light), "marker": look.marker, "dashes": dashes}


def _color(light: str) -> str:
    """Return a colour as the page has it, which follows light and dark."""
    known = css_variables().get(light)
    return f"var({known[0]})" if known else light


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
