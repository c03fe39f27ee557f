"""The page of a comparison: two runs before and after, or two machines side by side."""

from __future__ import annotations

from typing import Any

import pandas as pd

from results.analysis.analysis import Analysis
from results.analysis.selection import Selection
from results.chapters.environment.facts import provenance
from results.chapters.trust.rows import trust
from results.chapters.trust.tables import trust_section
from results.comparison.changes import Comparison
from results.comparison.sections import every_metric, name_sides, sections, summary
from results.comparison.tables import Sides, backend_views
from results.comparison.words import headline
from results.page.blocks import Section
from results.page.frame import PageFigure, page_figure, render
from results.records.load import Run, machine_names
from results.text.notes import MOST, grouped


def comparison_page(base: Run, new: Run, found: Comparison, only: Selection | None = None) -> str:
    """Return the HTML page of a comparison: one file that loads nothing.

    Args:
        base: what it was.
        new: what it is.
        found: the comparison of the two, by one metric; the others that both runs have are
            compared here, with the same thresholds.
        only: the cases that are judged.
    """
    sides = name_sides(base, new)
    every = every_metric(base, new, found, only)
    shown = sections(base, new, every, sides)
    runs = {"base": base, "new": new}
    analyses = {name: Analysis(run) for name, run in runs.items()}
    trusted = {name: trust(one) for name, one in analyses.items()}
    warnings = [f"{name}: {w}" for name, run in runs.items()
                for w in (*trusted[name].warnings, *run.warnings)]  # fmt: skip
    frame = pd.concat([run.frame.assign(side=name) for name, run in runs.items()])
    timed = frame[frame["kind"].isin(("speed", "peer"))]
    context = {
        "method": [],
        "modes": set(timed["mode"]),
        "levels": set(timed["level"]),
        "sides": sides,
        "are_machines": sides != Sides(),
        "about": {name: _about(run) for name, run in runs.items()},
        "headline": _capital(headline(found)),
        "backends": backend_views(every),
        "paragraphs": [summary(one, sides, is_headed=one is found) for one in every],
        "differences": found.differences,
        "warnings": grouped([*found.notes, *warnings]),
        "most_warnings": MOST,
        "sections": shown,
        "figures": [_figures(section, i) for i, section in enumerate(shown, 1)],
        "trust": [(name, trust_section(trusted[name])) for name in runs],
        "trust_figures": [
            _figures(trust_section(found_of), i) for i, found_of in enumerate(trusted.values(), 1)
        ],
        "facts": [(name, provenance(one)) for name, one in analyses.items()],
    }
    return render("comparison.html.j2", context, frame)


def _figures(section: Section, number: int) -> list[PageFigure]:
    drawn = (page_figure(drawing, number) for drawing in section.drawings)
    return [figure for figure in drawn if figure is not None]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _about(run: Run) -> dict[str, Any]:
    frame = run.frame
    return {
        "machines": list(dict.fromkeys(machine_names(run).values())),
        "commits": [c[:12] for c in frame["commit"].unique() if c],
        "num_launches": len(run.records),
    }
