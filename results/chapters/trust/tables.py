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
    "budget": "time ran out",
    "count": "enough samples",
    "": "not recorded",
}

_CONDITIONS: dict[str, tuple[str, Callable[[float], str]]] = {
    "steal": ("hypervisor", lambda v: numbers.digits(v, 2)),
    "other_cpu": ("other programs", lambda v: numbers.digits(v, 2)),
    "frequency": ("CPU clock", lambda v: f"{numbers.rate(v)}Hz"),
    "throttled": ("CPU throttling events", lambda v: f"{v:,.0f}"),
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
        "The same work every time; below the time its range. Drift: largest over smallest running "
        "median, less 1. Spread: 90 % quantile over 10 % quantile, less 1. A run with more than "
        f"{LIMIT_TEXT} of drift or {SPREAD_TEXT} of spread counts as disturbed."
    ]
    return _table(trust, "Control benchmark", lambda run: run.drifts, columns, notes, ("remark",))


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
            "between processes": run.sampling.between,
            "within a process": run.sampling.within,
            "of a median": run.sampling.half_width,
        }  # fmt: skip
        return [(what, span) for what, span in spans.items() if span.num_values]

    columns: Columns[tuple[str, Span]] = {
        "spread": lambda row: row[0],
        "count": lambda row: f"{row[1].num_values:,}",
        "median": lambda row: numbers.percent(row[1].median),
        "worst": lambda row: numbers.percent(row[1].high),
        "where": lambda row: row[1].where,
    }
    notes = [
        "Between processes: largest over smallest median of a case's processes, less 1. Within a "
        f"process: interquartile range of its samples over their median (at least {FEWEST} "
        "samples). Of a median: half-width of its 95 % interval by order statistics (at least 6 "
        "samples).",
        "All other intervals on this page are between processes, never between samples.",
    ]
    return _table(trust, "Spread between and within processes", rows, columns, notes)


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
        "measurements": lambda row: f"{row[1]:,}",
        "share": lambda row: share(row[1], row[2]),
    }
    notes = [
        f"Sampling ends once the median's 95 % interval is within ±{TARGET_TEXT}, when its time "
        "runs out, or at the largest number of samples. A measurement: a variant in a process."
    ] * has_stops
    notes.append("Warm-up cut short: its time ran out before calls stopped getting faster.")
    return _table(trust, "How sampling ended", rows, columns, notes)


def _outlier_table(trust: Trust) -> TableView:
    columns: Columns[Row] = {
        "backend": of("name"),
        "processes": lambda row: f"{row['looked']:,} of {row['launches']:,}",
        "samples": of("samples", _count),
        "low, severe": of(FENCES[0], _count),
        "low, mild": of(FENCES[1], _count),
        "high, mild": of(FENCES[2], _count),
        "high, severe": of(FENCES[3], _count),
        "share": lambda row: share(sum(row[fence] for fence in FENCES), row["samples"]),
    }
    notes = [
        f"Tukey's fences: mild from {MILD:g} interquartile ranges beyond the quartiles of a "
        f"process, severe from {SEVERE:g}; only processes with at least {FEWEST} samples. Nothing "
        "is dropped: outliers stay in the data and in every median.",
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
        "condition": lambda row: _CONDITIONS[row[0]][0],
        "processes": lambda row: f"{row[1].num_values:,}",
        "median": written(lambda span: span.median),
        "lowest": written(lambda span: span.low),
        "highest": written(lambda span: span.high),
        "where": lambda row: row[1].where if row[1].low != row[1].high else "",
    }
    explained = {
        "steal": "Hypervisor: CPU time that it gave to others (steal); 0.5 = half a core.",
        "other_cpu": "Other programs: CPU time that they took, in cores.",
        "switches": "Context switches: involuntary ones.",
    }
    notes = [
        note
        for name, note in explained.items()
        if any(run.conditions.spans[name].num_values for run in trust.runs)
    ]
    return _table(trust, "Machine conditions while measuring", rows, columns, notes)


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
        "An empty call is measured like a case but does nothing; its time is part of every "
        f"latency. Below {EMPTY_FACTOR:g} ×: cases that take less than {EMPTY_FACTOR:g} empty "
        "calls; they are left out of exponents."
    ]
    return _table(trust, "Overhead of measuring", lambda run: run.harness, columns, notes)


def _prediction_table(trust: Trust) -> TableView:
    def rows(run: RunTrust) -> Iterable[tuple[str, Span]]:
        spans = {"latency": run.predictions.latency, "peak_memory": run.predictions.memory}
        return [(metric, span) for metric, span in spans.items() if span.num_values]

    columns: Columns[tuple[str, Span]] = {
        "measured / predicted": lambda row: METRICS[row[0]].words,
        "cases": lambda row: f"{row[1].num_values:,}",
        "median": lambda row: numbers.times(row[1].median),
        "lowest": lambda row: numbers.times(row[1].low),
        "highest": lambda row: numbers.times(row[1].high),
        "where": lambda row: row[1].where,
    }
    notes = [
        "First process of each case (later ones are predicted from it). Predictions only keep "
        "cases from being started; they are never results."
    ]
    return _table(trust, "Predicted and measured cost", rows, columns, notes)
