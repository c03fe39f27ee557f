"""The chapter of claims: verdicts with what they rest on, and a panel a claim that has lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.claims.catalogue import Claim, Verdict
from results.chapters.claims.verdicts import Answer, Ruling, in_words, lines_of, rulings
from results.figures import plot_data
from results.figures.axes import trimmed
from results.figures.panels import linestyle, make_panels
from results.figures.theme import looks
from results.metrics import METRICS
from results.page.blocks import Cell, Drawing, Paragraph, Part, Section, TableView
from results.page.columns import Columns, table
from results.schema import CLAIM
from results.text import numbers

WORDS: Mapping[Verdict, str] = {
    "supported": "supported", "refuted": "refuted", "inconclusive": "inconclusive",
    "not_run": "not run",
}  # fmt: skip
PANELS = 6
"""Of a figure."""

WIDE_RANGE = 3.5
"""From this ratio of the largest value to the smallest on, an axis is logarithmic."""

Panel = tuple[Claim, tuple[str, str], dict[str, list[tuple[float, float]]]]


def claims_part(analysis: Analysis) -> Part | None:
    """Return the part of the report that has claims."""
    found = rulings(analysis)
    if not found:
        return None
    counts = Counter(ruling.verdict for ruling in found)
    told = ", ".join(f"{counts[v]} {WORDS[v]}" for v in WORDS if counts[v])
    shown: tuple[Verdict, ...] = ("refuted", "inconclusive", "not_run")
    names = [
        f"{WORDS[verdict].capitalize()}: {', '.join(r.claim.id for r in of_verdict)}."
        for verdict in shown
        if (of_verdict := [r for r in found if r.verdict == verdict])
    ]
    summary = Paragraph("Claims", [f"Of {len(found)} claims: {told}.", *names])
    section = Section(
        "Common claims about attention",
        lead="Each claim is tested by a small seeded experiment or by an exponent fitted to this "
        "run. It is supported or refuted where the whole 95 % interval is inside or outside the "
        "expected range.",
        paragraphs=[Paragraph("", [f"{told.capitalize()}."])],
        drawings=_drawings(analysis, found),
        tables=[_verdicts(found), _grounds(found)],
    )
    return Part("claims", "Claims tested", [section], [summary])


def _verdicts(found: Sequence[Ruling]) -> TableView:
    columns: Columns[Ruling] = {
        "id": lambda ruling: ruling.claim.id,
        "verdict": lambda ruling: Cell(
            WORDS[ruling.verdict], is_status=ruling.verdict != "supported"
        ),
        "claim": lambda ruling: ruling.claim.text,
        "evidence": _leading,
        "note": lambda ruling: ruling.claim.note or numbers.NONE,
    }
    return table("Verdicts", found, columns, text_columns=5, is_long=False)


def _leading(ruling: Ruling) -> str:
    answer = ruling.leading
    if answer is None:
        return ruling.reason
    wanted = f", expected {answer.question.wanted}" if answer.question.decides else ""
    return f"{answer.question.says}: {in_words(answer.value)}{wanted}"


def _grounds(found: Sequence[Ruling]) -> TableView:
    columns: Columns[tuple[Ruling, Answer]] = {
        "claim": lambda row: row[0].claim.id,
        "question": lambda row: row[1].question.says,
        "value": lambda row: in_words(row[1].value),
        "expected": lambda row: row[1].question.wanted,
        "answer": lambda row: Cell(*_word(row[1])),
    }
    notes = [
        "Value: mean over seeds and processes with its 95 % interval; of an exponent, that of the "
        "fit. Questions without an expected range do not count for the verdict."
    ]
    rows = [(ruling, answer) for ruling in found for answer in ruling.answers]
    return table("Every question", rows, columns, text_columns=2, notes=notes, is_long=True)


def _word(answer: Answer) -> tuple[str, str]:
    if not answer.question.decides:
        return (numbers.NONE if answer.value is not None else WORDS["not_run"]), answer.reason
    return WORDS[answer.verdict], answer.reason


# -- figures -------------------------------------------------------------------------------------


def _drawings(analysis: Analysis, found: Sequence[Ruling]) -> list[Drawing]:
    panels = [panel for ruling in found if (panel := _panel(analysis, ruling.claim))[2]]
    groups = [panels[i : i + PANELS] for i in range(0, len(panels), PANELS)]
    return [
        Drawing(
            f"claims-{number}",
            f"Evidence, {number} of {len(groups)}",
            f"Medians over seeds and processes: {', '.join(p[0].id for p in group)}.",
            partial(_draw, group),
        )
        for number, group in enumerate(groups, 1)
    ]


def _panel(analysis: Analysis, claim: Claim) -> Panel:
    axes, lines = lines_of(analysis.run, claim.id)
    if not lines:
        axes, lines = _growth(analysis, claim)
    return claim, axes, {k: v for k, v in lines.items() if len(v) > 1}


def _growth(
    analysis: Analysis, claim: Claim
) -> tuple[tuple[str, str], dict[str, list[tuple[float, float]]]]:
    """Return what fitted exponents are fitted to: a line a backend, of the first metric."""
    asked = [q for q in claim.questions if q.backend]
    if not asked:
        return ("", ""), {}
    metric = asked[0].metric
    table = analysis.points
    lines = {}
    for question in asked:
        rows = table[
            (table["backend"] == question.backend) & (table["options"] == "")
            & (table["metric"] == metric) & (table["mode"] == "forward")
            & (table["level"] == "attention")
            & (table["is_causal"] == question.is_causal) & (table["value"] > 0)
        ]  # fmt: skip
        name = f"{question.backend}, causal" if question.is_causal else question.backend
        lines[name] = sorted(zip(rows["seq_len"], rows["value"], strict=True))
    row = METRICS[metric]
    return ("tokens", f"{row.in_sentence} ({row.unit})"), lines


def _draw(panels: Sequence[Panel]) -> Figure | None:
    made = make_panels(len(panels), columns=2)
    if made is None:
        return None
    figure, axes = made
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 0.72)
    for ax, (claim, (x_label, y_label), lines) in zip(axes, panels, strict=True):
        drawn = looks((label, "") for label in lines)
        for label, line in lines.items():
            look = drawn[label, ""]
            xs, ys = zip(*line, strict=True)
            plot_data.line(ax, (label, label), look, (plot_data.Point(*point) for point in line))
            ax.plot(
                xs, ys, label=label, color=look.light, marker=look.marker, markersize=5.5,
                linestyle=linestyle(look),
            )  # fmt: skip
        every = [point for line in lines.values() for point in line]
        _axis(ax, "x", [x for x, _ in every], x_label)
        _axis(ax, "y", [y for _, y in every], y_label)
        ax.set_title(claim.id)
        ax.set_xlabel(x_label)
        ax.set_ylabel(y_label)
        ax.legend(fontsize=8, frameon=False)
    return figure


def _axis(ax: Axes, which: str, values: Sequence[float], label: str) -> None:
    """Make an axis logarithmic where its values lie far apart; write its ticks by its unit."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    shown = pd.Series(values)
    far = shown.max() / shown.min() if shown.min() > 0 else 0.0
    if far >= WIDE_RANGE:
        base = 2 if which == "x" else 4 if label.endswith("(B)") else 10
        getattr(ax, f"set_{which}scale")("log", base=base)
        steps = (1,) if base < 10 or far > 100 else (1, 2, 5)
        axis.set_major_locator(LogLocator(base=base, subs=steps, numticks=8))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, label)))
    for unit, kind in (("(s)", "seconds"), ("(B)", "bytes")):
        if label.endswith(unit):
            plot_data.kind(axis, kind)


def _tick(value: float, label: str) -> str:
    if label.endswith("(s)") and value > 0:
        return trimmed(numbers.seconds(value))
    if label.endswith("(B)") and value > 0:
        return trimmed(numbers.size(value))
    for factor, suffix in ((1e9, " G"), (1e6, " M")):
        if factor <= abs(value) < 1e12:
            return f"{value / factor:g}{suffix}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:g}"


CHAPTER = ReportChapter(kinds=(CLAIM,), order=70, part=claims_part)
