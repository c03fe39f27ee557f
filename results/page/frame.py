"""What every page of ours is made with: one HTML file that loads nothing, everything escaped.

The frame of a page is the template ``page.html.j2``: its style, its policy, which allows the
scripts beside it and no others, and those scripts. What it shows are sections
(`results.page.blocks`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from results.figures.svg import Drawn, drawn
from results.figures.theme import css_variables
from results.page.blocks import Drawing
from results.records.csv_text import csv_text

TEMPLATES = Path(__file__).parent.parent / "templates"
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "report.js", "screen.js")
"""In the order in which they run."""


class PageFigure(NamedTuple):
    """A figure of the page: as SVG, and its panels for the page's script."""

    name: str
    title: str
    caption: str
    svg: str
    panels: list[dict[str, Any]]


def render(template: str, shown: Any, frame: pd.DataFrame) -> str:
    """Return a page.

    Args:
        template: one that extends ``page.html.j2``.
        shown: its variables.
        frame: the tidy rows that the page rests on, for its download.
    """
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    variables = sorted(css_variables().values())
    environment.filters["as_json"] = as_json
    return environment.get_template(template).render(
        **shown,
        light={name: light for name, light, _ in variables},
        dark={name: dark for name, _, dark in variables},
        scripts=[Markup(text) for text in scripts],  # ours, not the records'
        script_hashes=" ".join(map(_content_hash, scripts)),
        download=_download(frame),
    )


def page_figure(drawing: Drawing, number: int) -> PageFigure | None:
    """Draw a figure for the page; None for an empty one."""
    name = f"{drawing.name}-{number}"
    made = drawn(drawing.draw, prefix=name, title=drawing.title)
    return None if made is None else in_page(drawing, name, made)


def in_page(drawing: Drawing, name: str, made: Drawn) -> PageFigure:
    """Return a figure that was drawn as the page shows it."""
    assert made.inline is not None
    return PageFigure(name, drawing.title, made.caption(drawing.caption), *made.inline)


def _content_hash(script: str) -> str:
    """Return how a policy names an inline script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _download(frame: pd.DataFrame) -> str:
    """Return a tidy frame as CSV, compressed, as base64: a row a case, launch, arm and metric.

    Single samples are left out: a value is their median.
    """
    text = csv_text(frame.drop(columns="samples"))
    # No time of day in it: equal records, equal page.
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def as_json(value: object) -> Markup:
    """Return a value as JSON that may stand in a script element: nothing in it ends one."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
