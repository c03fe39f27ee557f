"""The tables of the chapter "How far to trust these numbers"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from results.analysis.exponents import EMPTY_FACTOR
from results.chapters.trust.between_words import between_table
from results.chapters.trust.conditions import LOAD
from results.chapters.trust.drift import DRIFT_LIMIT, SPREAD_LIMIT, Drift
from results.chapters.trust.figures import CAPTION as FIGURE_CAPTION
from results.chapters.trust.figures import TITLE as FIGURE_TITLE
from results.chapters.trust.figures import drift_figure
from results.chapters.trust.rows import Harness, RunTrust, Trust
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
from results.metrics import METRICS
from results.page.blocks import Cell, Drawing, Paragraph, Section, TableView
from results.page.columns import Columns, Row, Writer, of, table
from results.records.frames import as_rows
from results.statistics.spread import Span
from results.text import numbers

T = TypeVar("T")

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
        _drift_table(trust), between_table(trust.between), _spread_table(trust),
        _stop_table(trust), _outlier_table(trust), _condition_table(trust), _harness_table(trust),
        _prediction_table(trust),
    ]  # fmt: skip
    return [view for view in views if view.rows]


def _table(
    trust: Trust,
    title: str,
    rows: Callable[[RunTrust], Iterable[T]],
    columns: Columns[T],
    notes: Sequence[str],
    optional: Collection[str] = (),
) -> TableView:
    """Return a table of the rows of every run."""
    several = len(trust.runs) > 1
    pairs = [(run, row) for run in trust.runs for row in rows(run)]
    given = columns.items() if isinstance(columns, Mapping) else columns
    whole: list[tuple[str, Writer[tuple[RunTrust, T]]]] = [
        (head, partial(_of_row, write)) for head, write in given
    ]
    if several:
        whole.insert(0, ("run", lambda pair: pair[0].name))
    return table(
        title, pairs, whole, text_columns=1 + several, notes=notes, optional=optional
    )  # fmt: skip


def _of_row(write: Writer[T], pair: tuple[RunTrust, T]) -> Cell | str:
    return write(pair[1])


def _drift_table(trust: Trust) -> TableView:
    columns: Columns[Drift] = {
        "setting": lambda d: d.name,
        "repetitions": lambda d: f"{len(d.seconds)}",
        "time": _repeated,
        "drift": lambda d: Cell(numbers.percent(d.drift), is_status=d.drift > DRIFT_LIMIT),
        "spread": lambda d: Cell(numbers.percent(d.spread), is_status=d.spread > SPREAD_LIMIT),
        "remark": lambda d: Cell("disturbed" if d.is_disturbed else d.reason, "", d.is_disturbed),
    }
    notes = [
        "The same work every time; below the time its shortest and longest. Drift: largest over "
        "smallest running median of the repetitions, less 1, so that one odd process does not "
        "count. Spread: their 90 % quantile over their 10 % quantile, less 1. "
        f"A run that drifted by more than {LIMIT_TEXT} or spread by more than {SPREAD_TEXT} "
        "is disturbed."
    ]
    return _table(trust, "The sentinel", lambda run: run.drifts, columns, notes, ("remark",))


def _repeated(drift: Drift) -> Cell:
    seconds = sorted(drift.seconds)
    if not seconds:
        return Cell(numbers.NONE)
    middle = numbers.seconds(seconds[len(seconds) // 2])
    if len(seconds) == 1:
        return Cell(middle)
    return Cell(middle, numbers.interval(seconds[0], seconds[-1], numbers.seconds).strip("()"))


def _spread_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[tuple[str, Span]]:
        spans = {
            "of launches": run.sampling.between, "of samples": run.sampling.within,
            "of a median": run.sampling.half_width,
        }  # fmt: skip
        return [(what, span) for what, span in spans.items() if span.num_values]

    columns: Columns[tuple[str, Span]] = {
        "spread": lambda row: row[0],
        "of": lambda row: f"{row[1].num_values:,}",
        "median": lambda row: numbers.percent(row[1].median),
        "worst": lambda row: numbers.percent(row[1].high),
        "where": lambda row: row[1].where,
    }
    notes = [
        "Of launches: largest over smallest median of a case's launches, less 1. Of samples: "
        f"interquartile range of a launch's samples over their median, from {FEWEST} samples on. "
        "Of a median: half-width of its 95 % interval by order statistics, from 6 samples "
        "on.",
        "Intervals elsewhere on this page come from launches, never from samples.",
    ]
    return _table(trust, "Spread of launches and samples", rows, columns, notes)


def _stop_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[tuple[str, int, int]]:
        sampling = run.sampling
        if run.has_stops:
            for word, count in sampling.stopped.items():
                if count:
                    yield _STOPPED[word], count, sampling.arms
        if sampling.warm_ups:
            yield "warm-up cut short", sampling.not_converged, sampling.warm_ups

    has_stops = any(run.has_stops for run in trust.runs)
    columns: Columns[tuple[str, int, int]] = {
        "sampling ended by" if has_stops else "sampling": lambda row: row[0],
        "arms of launches": lambda row: f"{row[1]:,}",
        "share": lambda row: share(row[1], row[2]),
    }
    notes = [
        f"Sampling ends once the 95 % interval of an arm's median is within ±{TARGET_TEXT} of "
        "it, or when its time is spent, or with enough samples for any purpose."
    ] * has_stops
    notes.append("Warm-up cut short: its time was spent before calls stopped getting faster.")
    return _table(trust, "How sampling ended", rows, columns, notes)


def _outlier_table(trust: Trust) -> TableView:
    columns: Columns[Row] = {
        "backend": of("name"),
        "launches": lambda row: f"{row['looked']:,} of {row['launches']:,}",
        "samples": of("samples", _count),
        "low, severe": of(FENCES[0], _count),
        "low, mild": of(FENCES[1], _count),
        "high, mild": of(FENCES[2], _count),
        "high, severe": of(FENCES[3], _count),
        "share": lambda row: share(sum(row[fence] for fence in FENCES), row["samples"]),
    }
    notes = [
        f"Samples beyond Tukey's fences: mild from {MILD:g} interquartile ranges beyond the "
        f"quartiles of their launch, severe from {SEVERE:g}. Launches with {FEWEST} samples at "
        "least were looked at.",
        "Nothing is dropped: outliers stay in the records and in every median.",
    ]
    return _table(
        trust, "Outliers among the samples",
        lambda run: [row for row in as_rows(run.sampling.outliers) if row["looked"]],
        columns, notes,
    )  # fmt: skip


def _count(value: int) -> str:
    return f"{value:,}"


def _condition_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[tuple[str, Span]]:
        spans = run.conditions.spans
        return [(name, spans[name]) for name in _CONDITIONS if spans[name].num_values]

    def written(value: Callable[[Span], float]) -> Writer[tuple[str, Span]]:
        return lambda row: _CONDITIONS[row[0]][1](value(row[1]))

    columns: Columns[tuple[str, Span]] = {
        "while cases were timed": lambda row: _CONDITIONS[row[0]][0],
        "launches": lambda row: f"{row[1].num_values:,}",
        "median": written(lambda span: span.median),
        "lowest": written(lambda span: span.low),
        "highest": written(lambda span: span.high),
        "where": lambda row: row[1].where if row[1].low != row[1].high else "",
    }
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
    return _table(trust, "What else the machine did", rows, columns, notes)


def _harness_table(trust: Trust) -> TableView:
    columns: Columns[Harness] = {
        "setting": lambda cost: cost.name,
        "empty call": lambda cost: numbers.seconds(cost.empty),
        "largest share": lambda cost: (
            f"{'< ' if cost.share.high < 0.001 else ''}{tiny_share(cost.share.high)}"
        ),
        "where": lambda cost: cost.share.where,
        f"below {EMPTY_FACTOR:g} ×": lambda cost: f"{len(cost.small):,} of {cost.cases:,}",
    }
    notes = [
        "An empty call is measured as a case is and does nothing: its time is part of every "
        f"latency. Below {EMPTY_FACTOR:g} ×: cases that take less than {EMPTY_FACTOR:g} empty "
        "calls; no exponent is fitted to them."
    ]
    return _table(trust, "What measuring itself costs", lambda run: run.harness, columns, notes)


def _prediction_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[tuple[str, Span]]:
        spans = {"latency": run.predictions.latency, "peak_memory": run.predictions.memory}
        return [(metric, span) for metric, span in spans.items() if span.num_values]

    columns: Columns[tuple[str, Span]] = {
        "measured over foretold": lambda row: METRICS[row[0]].words,
        "cases": lambda row: f"{row[1].num_values:,}",
        "median": lambda row: numbers.times(row[1].median),
        "lowest": lambda row: numbers.times(row[1].low),
        "highest": lambda row: numbers.times(row[1].high),
        "where": lambda row: row[1].where,
    }
    notes = [
        "Of a case's first launch, since later ones are foretold from it. A prediction only keeps "
        "a case from being started; it is never a result."
    ]
    return _table(trust, "Predictions against what cases took", rows, columns, notes)
