"""The tables of the chapter "How far to trust these numbers"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from results.analysis.exponents import EMPTY_FACTOR
from results.chapters.trust.conditions import LOAD
from results.chapters.trust.drift import DRIFT_LIMIT, SPREAD_LIMIT
from results.chapters.trust.figures import CAPTION as FIGURE_CAPTION
from results.chapters.trust.figures import TITLE as FIGURE_TITLE
from results.chapters.trust.figures import drift_figure
from results.chapters.trust.rows import RunTrust, Trust
from results.chapters.trust.sampling import FENCES, FEWEST, MILD, SEVERE
from results.chapters.trust.sentences import (
    LIMIT_TEXT,
    SPREAD_TEXT,
    TARGET_TEXT,
    TITLE,
    share,
    tiny_share,
    trust_paragraphs,
)
from results.page.blocks import LONG, Cell, Drawing, Paragraph, Section, TableView
from results.records.frames import as_rows
from results.statistics.intervals import Array
from results.text import numbers

_STOPPED = {
    "spread": f"within ±{TARGET_TEXT}",
    "budget": "time spent",
    "count": "enough samples",
    "": "not recorded",
}

_CONDITIONS: dict[str, tuple[str, Callable[[float], str]]] = {
    "steal": ("hypervisor", lambda v: numbers.digits(v, 2)),
    "other_cpu": ("other programs", lambda v: numbers.digits(v, 2)),
    "frequency": ("processors' clock", lambda v: f"{numbers.rate(v)}Hz"),
    "throttled": ("slow-downs", lambda v: f"{v:,.0f}"),
    "switches": ("context switches", lambda v: f"{v:,.0f}"),
    LOAD: ("load at the start", lambda v: numbers.digits(v, 2)),
    "gpu_users": ("GPU: other processes", lambda v: f"{v:,.0f}"),
    "gpu_temperature": ("GPU: temperature", lambda v: f"{v:.0f} °C"),
    "gpu_frequency": ("GPU: clock", lambda v: f"{numbers.rate(v)}Hz"),
}


def trust_section(trust: Trust) -> Section:
    """Return the chapter; of one run its paragraph needs no heading."""
    paragraphs = trust_paragraphs(trust)
    if len(paragraphs) == 1:
        paragraphs = [Paragraph("", paragraphs[0].sentences)]
    figure = Drawing("trust", FIGURE_TITLE, FIGURE_CAPTION, partial(drift_figure, trust))
    return Section(TITLE, paragraphs=paragraphs, drawings=[figure], tables=trust_tables(trust))


def trust_tables(trust: Trust) -> list[TableView]:
    """Return the chapter's tables that have rows; several runs stand in a column of their own."""
    views = [
        _drift_table(trust), _spread_table(trust), _stop_table(trust), _outlier_table(trust),
        _condition_table(trust), _harness_table(trust), _prediction_table(trust),
    ]  # fmt: skip
    return [view for view in views if view.rows]


def _table(
    trust: Trust,
    title: str,
    head: list[str],
    rows: Callable[[RunTrust], Iterable[list[Cell]]],
    notes: list[str],
) -> TableView:
    """Return a table of the rows of every run."""
    several = len(trust.runs) > 1
    cells = [
        [*([Cell(run.name)] if several else []), *row] for run in trust.runs for row in rows(run)
    ]
    return TableView(
        title, [*(["run"] if several else []), *head], cells, 1 + several, notes,
        is_long=len(cells) > LONG,
    )  # fmt: skip


def _drift_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        for d in run.drifts:
            middle = sorted(d.seconds)[len(d.seconds) // 2] if len(d.seconds) else math.nan
            yield [
                Cell(d.name),
                Cell(f"{len(d.seconds)}"),
                Cell(
                    numbers.seconds(middle),
                    numbers.interval(*_ends(d.seconds), numbers.seconds).strip("()"),
                ),
                Cell(numbers.percent(d.drift), is_status=d.drift > DRIFT_LIMIT),
                Cell(numbers.percent(d.spread), is_status=d.spread > SPREAD_LIMIT),
                Cell("disturbed" if d.is_disturbed else d.reason, is_status=d.is_disturbed),
            ]

    head = ["setting", "repetitions", "time", "drift", "spread", "remark"]
    notes = [
        "The same work every time; below the time its shortest and longest. Drift: largest over "
        "smallest running median of the repetitions, less 1, so that one odd process does not "
        "count. Spread: their 90 % quantile over their 10 % quantile, less 1. "
        f"A run that drifted by more than {LIMIT_TEXT} or spread by more than {SPREAD_TEXT} "
        "is disturbed."
    ]
    view = _table(trust, "The sentinel", head, rows, notes)
    if any(cells[-1].text for cells in view.rows):
        return view
    return replace(view, head=view.head[:-1], rows=[cells[:-1] for cells in view.rows])


def _ends(seconds: Array) -> tuple[float, float]:
    return (float(min(seconds)), float(max(seconds))) if len(seconds) > 1 else (math.nan, math.nan)


def _spread_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        told = run.sampling
        for what, found in (
            ("of launches", told.between),
            ("of samples", told.within),
            ("of a median", told.half_width),
        ):
            if found.num_values:
                yield [
                    Cell(what),
                    Cell(f"{found.num_values:,}"),
                    Cell(numbers.percent(found.median)),
                    Cell(numbers.percent(found.high)),
                    Cell(found.where),
                ]

    head = ["spread", "of", "median", "worst", "where"]
    notes = [
        "Of launches: largest over smallest median of a case's launches, less 1. Of samples: "
        f"interquartile range of a launch's samples over their median, from {FEWEST} samples on. "
        "Of a median: half-width of its 95 % interval by order statistics, from 6 samples "
        "on.",
        "Intervals elsewhere on this page come from launches, never from samples.",
    ]
    return _table(trust, "Spread of launches and samples", head, rows, notes)


def _stop_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        told = run.sampling
        if run.has_stops:
            for word, count in told.stopped.items():
                if count:
                    yield [Cell(_STOPPED[word]), Cell(f"{count:,}"),
                           Cell(share(count, told.arms))]  # fmt: skip
        if told.warm_ups:
            yield [Cell("warm-up cut short"), Cell(f"{told.not_converged:,}"),
                   Cell(share(told.not_converged, told.warm_ups))]  # fmt: skip

    head = ["sampling ended by", "arms of launches", "share"]
    notes = [
        f"Sampling ends once the 95 % interval of an arm's median is within ±{TARGET_TEXT} of "
        "it, or when its time is spent, or with enough samples for any purpose."
    ]
    if not any(run.has_stops for run in trust.runs):
        head, notes = ["sampling", *head[1:]], []
    notes.append("Warm-up cut short: its time was spent before calls stopped getting faster.")
    return _table(trust, "How sampling ended", head, rows, notes)


def _outlier_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        for row in as_rows(run.sampling.outliers):
            if not row["looked"]:
                continue
            total = sum(row[f] for f in FENCES)
            yield [
                Cell(str(row["name"])),
                Cell(f"{row['looked']:,} of {row['launches']:,}"),
                Cell(f"{row['samples']:,}"),
                *(Cell(f"{row[f]:,}") for f in FENCES),
                Cell(share(total, row["samples"])),
            ]

    head = ["backend", "launches", "samples", "low, severe", "low, mild", "high, mild",
            "high, severe", "share"]  # fmt: skip
    notes = [
        f"Samples beyond Tukey's fences: mild from {MILD:g} interquartile ranges beyond the "
        f"quartiles of their launch, severe from {SEVERE:g}. Launches with {FEWEST} samples at "
        "least were looked at.",
        "Nothing is dropped: outliers stay in the records and in every median.",
    ]
    return _table(trust, "Outliers among the samples", head, rows, notes)


def _condition_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        for name, (words, write) in _CONDITIONS.items():
            told = run.conditions.spans[name]
            if told.num_values:
                yield [
                    Cell(words),
                    Cell(f"{told.num_values:,}"),
                    Cell(write(told.median)),
                    Cell(write(told.low)),
                    Cell(write(told.high)),
                    Cell(told.where if told.low != told.high else ""),
                ]

    head = ["while cases were timed", "launches", "median", "lowest", "highest", "where"]
    explained = {
        "steal": "Hypervisor: processors' time that it gave to others, 0.5 is half of one's.",
        "other_cpu": "Other programs: processors' time that they took.",
        "throttled": "Slow-downs: times a processor held its clock back for heat or power.",
        "switches": "Context switches: involuntary ones.",
    }
    notes = [
        note
        for name, note in explained.items()
        if any(run.conditions.spans[name].num_values for run in trust.runs)
    ]
    return _table(trust, "What else the machine did", head, rows, notes)


def _harness_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        for cost in run.harness:
            yield [
                Cell(cost.name),
                Cell(numbers.seconds(cost.empty)),
                Cell(f"{'< ' if cost.share.high < 0.001 else ''}{tiny_share(cost.share.high)}"),
                Cell(cost.share.where),
                Cell(f"{len(cost.small):,} of {cost.cases:,}"),
            ]

    head = ["setting", "empty call", "largest share", "where", f"below {EMPTY_FACTOR:g} ×"]
    notes = [
        "An empty call is measured as a case is and does nothing: its time is part of every "
        f"latency. Below {EMPTY_FACTOR:g} ×: cases that take less than {EMPTY_FACTOR:g} empty "
        "calls; no exponent is fitted to them."
    ]
    return _table(trust, "What measuring itself costs", head, rows, notes)


def _prediction_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[list[Cell]]:
        told = run.predictions
        for what, ratio in (("latency", told.latency), ("peak memory", told.memory)):
            if ratio.num_values:
                yield [
                    Cell(what),
                    Cell(f"{ratio.num_values:,}"),
                    *(Cell(numbers.times(v)) for v in (ratio.median, ratio.low, ratio.high)),
                    Cell(ratio.where),
                ]

    head = ["measured over foretold", "cases", "median", "lowest", "highest", "where"]
    notes = [
        "Of a case's first launch, since later ones are foretold from it. A prediction only keeps "
        "a case from being started; it is never a result."
    ]
    return _table(trust, "Predictions against what cases took", head, rows, notes)
