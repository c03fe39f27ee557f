"""Rank the backends that were measured: the settings of a frame, their candidates, the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from results.analysis.series import points
from results.recommendation import evidence, question
from results.recommendation.candidates import check_values, held, speed_rows
from results.recommendation.interpolation import Reading, Row, at_length
from results.recommendation.question import Question
from results.recommendation.ranking import Candidate, Ranking, Recommendation, relative_time
from results.records.case_columns import SETTING
from results.records.frames import as_rows, rows_by
from results.records.load import Run
from results.records.versions import one_version
from results.text.labels import rank
from results.text.modes import WORDS


def recommend(
    frame: pd.DataFrame,
    *,
    seq_len: int,
    mode: str,
    device: str,
    is_causal: bool = False,
    max_error: float | None = None,
    min_recall: float | None = None,
    max_memory: int | str | None = None,
    error_inputs: str | None = None,
    recall_task: str | None = None,
    dtype: str | None = None,
    batch: int | None = None,
    num_heads: int | None = None,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    threads: int | None = None,
    allocator: str | None = None,
    matmul_precision: str | None = None,
    compile: bool | None = None,
) -> Recommendation:
    """Rank the backends that were measured at a length and meet the limits.

    Candidates are the series of kind speed and level attention, on whole sequences of their own
    (no cross-attention). One qualifies that was measured at `seq_len`, or at the two lengths tried
    next to it (`at_length.at_length` says how its interval widens), and meets every limit. The
    worse end of an interval decides: the upper one of an error and of memory, the lower one of
    recall; the value alone where one launch or one seed gives no interval. What was never measured
    meets no limit. Each interval of a measured value
    holds at 95 % by itself; an interpolated one has bounds.

    Args:
        frame: ``results.load(…).frame``.
        seq_len: N, tokens; in mode decode those of the context.
        mode: ``forward``, ``training`` or ``decode``.
        device: ``cpu`` or ``cuda``.
        is_causal: in mode decode attention is causal whatever is said here.
        max_error: the largest relative L2 distance from exact softmax attention.
        min_recall: the least accuracy of a recall task, mean over seeds.
        max_memory: bytes, or text such as ``4GB``: of peak memory, in mode decode of the state.
        error_inputs: inputs of kind error on which the error counts, as ``gaussian:scale=1``.
            None: kind speed's own, ``gaussian:scale=0.3``, else the nearest Gaussian ones.
        recall_task: the task whose accuracy counts, as ``recall:num_pairs=8``. None: the one that
            most candidates were asked (`evidence.choose_exam`).
        dtype: this and all that follow choose among the settings of the records; None = any.
        batch: sequences at a time.
        num_heads: H.
        num_kv_heads: H_kv.
        head_dim: D.
        threads: of the CPU.
        allocator: ``default`` or ``retained``.
        matmul_precision: ``highest``, ``high`` or ``medium``.
        compile: whether the module was compiled.

    Raises:
        TypeError: if an argument is of the wrong type, or `frame` no frame.
        ValueError: if an argument is out of range, a column is missing, or the frame holds times
            or amounts that nothing can take or need; the message names what and what is accepted.
    """
    chosen = {
        "dtype": dtype, "batch": batch, "num_heads": num_heads, "num_kv_heads": num_kv_heads,
        "head_dim": head_dim, "threads": threads, "allocator": allocator,
        "matmul_precision": matmul_precision, "compile": compile,
    }  # fmt: skip
    asked = question.checked(
        seq_len=seq_len, mode=mode, device=device, is_causal=is_causal, max_error=max_error,
        min_recall=min_recall, max_memory=max_memory, error_inputs=error_inputs,
        recall_task=recall_task, setting=chosen,
    )  # fmt: skip
    speed = speed_rows(frame)
    wanted = (speed["device"] == device) & (speed["is_causal"] == asked.is_causal)
    for name, value in asked.setting.items():
        wanted &= speed[name] == value
    rows = speed[wanted & speed["mode"].isin([mode, "forward"])]
    check_values(rows)
    of_settings = settings(points(Run(rows, (), {}, {})), frame, asked)
    rankings = sorted((setting.ranking(asked) for setting in of_settings), key=_coverage)
    return Recommendation(asked, tuple(rankings), () if rankings else held(speed))


def _coverage(ranking: Ranking) -> tuple[Any, ...]:
    known = [c.latency for c in ranking.candidates if c.latency.known]
    exact = [r for r in known if r.between is None]
    first = (-len(known), -len(exact), -sum(len(r.launches) for r in known), -len(ranking.lengths))
    return (*first, *(str(ranking.setting[c]) for c in SETTING))


@dataclass(frozen=True)
class _Series:
    """One backend with its options in one setting: its points and its errors by inputs."""

    backend: str
    options: str
    points: Sequence[Mapping[Any, Any]]
    errors: Mapping[str, Sequence[Row]]

    def rows(self, metric: str, mode: str) -> list[Mapping[Any, Any]]:
        return [r for r in self.points if r["metric"] == metric and r["mode"] == mode]


@dataclass(frozen=True)
class Setting:
    """What one setting holds for a mode: asked for several lengths, it is looked up once.

    Attributes:
        values: of `case_columns.SETTING`.
        series: its candidates.
        exams: rows of recall tasks that may count.
        lengths: at which anything was measured, in tokens.
    """

    values: Mapping[str, Any]
    series: Sequence[_Series]
    exams: pd.DataFrame
    lengths: tuple[int, ...]

    def ranking(self, asked: Question) -> Ranking:
        """Return the ranking of a question of the mode and causality that this was made for."""
        names = [(one.backend, one.options) for one in self.series]
        exam = evidence.choose_exam(self.exams, names, str(self.values["machine"]), asked.seq_len)
        candidates = []
        for one in self.series:
            recall = evidence.recall_of(self.exams, exam, one.backend, one.options)
            candidates.append(_candidate(one, recall, asked))
        good = sorted((c for c in candidates if c.qualifies), key=lambda c: c.latency.value)
        bad = sorted(
            (c for c in candidates if not c.qualifies),
            key=lambda c: (not c.latency.known, c.latency.value if c.latency.known else 0.0),
        )
        timed = tuple(replace(c, times=relative_time(c, good[0])) for c in good)
        return Ranking(self.values, timed, tuple(bad), asked, self.lengths)


def settings(table: pd.DataFrame, frame: pd.DataFrame, asked: Question) -> list[Setting]:
    """Return the settings that hold anything of a question's mode.

    Args:
        table: `series.points` of the question's device and causality.
        frame: as of `recommend`: evidence of errors and recall is looked up there.
        asked: the question; its length does not count.
    """
    return [
        _setting(values, part, frame, asked)
        for values, part in rows_by(table, SETTING)
        if (part["mode"] == asked.mode).any()
    ]


def _setting(
    values: dict[str, Any], table: pd.DataFrame, frame: pd.DataFrame, asked: Question
) -> Setting:
    timed = table[table["mode"] == asked.mode]
    names = sorted(
        {(str(b), str(o)) for b, o in zip(timed["backend"], timed["options"], strict=True)},
        key=lambda name: (rank(name[0]), name[1]),
    )
    exams = evidence.recall_rows(frame, asked.recall_task)
    errors = frame[
        (frame["kind"] == "error") & (frame["is_causal"] == asked.is_causal)
        & (frame["dtype"] == values["dtype"]) & (frame["head_dim"] == values["head_dim"])
        & (frame["matmul_precision"] == values["matmul_precision"])
        & (frame["compile"] == values["compile"])
    ]  # fmt: skip
    errors = one_version(errors)  # no launches of two versions in one value
    series = [
        _Series(
            backend, options, as_rows(table[_named(table, backend, options)]),
            evidence.error_rows(errors[_named(errors, backend, options)]),
        )
        for backend, options in names
    ]  # fmt: skip
    has_time = (timed["metric"] == "latency") & timed["value"].notna()
    lengths = sorted({int(n) for n in timed[has_time]["seq_len"]})
    return Setting(values, series, exams[exams["is_causal"] == asked.is_causal], tuple(lengths))


def _named(rows: pd.DataFrame, backend: str, options: str) -> Any:
    return (rows["backend"] == backend) & (rows["options"] == options)


def _candidate(series: _Series, recall: Reading, asked: Question) -> Candidate:
    latency = at_length(series.rows("latency", asked.mode), asked.seq_len)
    memory = at_length(series.rows(WORDS[asked.mode].memory, asked.mode), asked.seq_len)
    by_mode = [series.rows("relative_error", m) for m in dict.fromkeys([asked.mode, "forward"])]
    by_inputs = evidence.errors_of(series.errors, asked.seq_len)
    error = evidence.error_of(by_mode, by_inputs, asked.seq_len, asked.error_inputs)
    counted = error.on.partition(" (")[0]
    others = {n: r for n, r in by_inputs.items() if r.known and n != counted}
    reasons = {} if latency.known else {"latency": latency.note}
    readings = {"max_error": error, "min_recall": recall, "max_memory": memory}
    for name, reading in readings.items():
        if said := question.shortfall(name, reading, asked.limit(name)):
            reasons[name] = said
    return Candidate(
        series.backend, series.options, latency, memory, error, recall, reasons, others
    )
