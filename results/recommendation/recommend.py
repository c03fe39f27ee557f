"""Rank the backends that were measured: the settings of a frame, their candidates, the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from results.analysis.series import points
from results.recommendation import question
from results.recommendation.candidates import (
    check_values,
    held,
    shipped_evidence,
    speed_rows,
)
from results.recommendation.evidence import Evidences
from results.recommendation.interpolation import Reading
from results.recommendation.prediction import HALVED, REACH, as_causal, at_any_length
from results.recommendation.quality import Quality, serves, unfit
from results.recommendation.question import Question
from results.recommendation.ranking import SDPA, Candidate, Ranking, Recommendation, ratio
from results.records.case_columns import SETTING
from results.records.frames import as_rows, rows_by
from results.records.load import Run
from results.text.labels import rank
from results.text.modes import WORDS

NOT_CAUSAL = "no causal call was measured"


def recommend(
    frame: pd.DataFrame,
    *,
    seq_len: int,
    mode: str | None = None,
    use: str | None = None,
    device: str = "cpu",
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
    shipped: bool = True,
) -> Recommendation:
    """Return the fastest exact method at a length, and the fastest that computes something else.

    Candidates are the series of kind speed and level attention, on whole sequences of their own
    (no cross-attention). Their time is measured at `seq_len`, interpolated between two lengths
    tried one after the other, or predicted from a fit, as long as its interval is narrow enough
    to be of use (`prediction.WIDEST`). Their quality is known from what models learnt with them or
    from inputs of a trained model (`evidence`); one whose quality is poor or unknown is no answer,
    unless a limit says what will do. A pattern that covers the whole input is exact
    there. An exact method meets every limit on the error. The worse end of an interval decides.
    Each interval of a measured value holds at 95 % by itself; others have bounds.

    Args:
        frame: ``results.load(…).frame``.
        seq_len: N, tokens; in mode decode those of the context.
        mode: ``forward``, ``training`` or ``decode``; None = ``forward``, for use ``decode`` that.
        use: ``swap``, ``finetune``, ``scratch`` or ``decode`` (`question.USES`); None = any.
        device: ``cpu`` or ``cuda``.
        is_causal: in mode decode attention is causal whatever is said here.
        max_error: the largest relative L2 distance from exact softmax attention.
        min_recall: the least accuracy of a recall task, mean over seeds.
        max_memory: bytes, or text such as ``4GB``: of peak memory, in mode decode of the state.
        error_inputs: inputs on which the error counts, as ``gaussian:scale=1``. None: those of a
            trained model, where there are none random ones.
        recall_task: the task whose accuracy counts, as ``recall:num_pairs=8``. None: any recall.
        dtype: this and all that follow choose among the settings of the records; None = any.
        batch: sequences at a time.
        num_heads: H.
        num_kv_heads: H_kv.
        head_dim: D.
        threads: of the CPU.
        allocator: ``default`` or ``retained``.
        matmul_precision: ``highest``, ``high`` or ``medium``.
        compile: whether the module was compiled.
        shipped: whether the evidence of quality that ships with attnbench counts, too, after that
            of the frame.

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
        seq_len=seq_len, mode=mode, use=use, device=device, is_causal=is_causal,
        max_error=max_error, min_recall=min_recall, max_memory=max_memory,
        error_inputs=error_inputs, recall_task=recall_task, setting=chosen,
    )  # fmt: skip
    speed = speed_rows(frame)
    wanted = speed["device"] == device
    for name, value in asked.setting.items():
        wanted &= speed[name] == value
    rows = speed[wanted & (speed["mode"] == asked.mode)]
    check_values(rows)
    rows, others = rows[rows["is_causal"] == asked.is_causal], rows[~rows["is_causal"]]
    evidence = evidences(frame, asked, shipped=shipped)
    of_settings = settings(points(Run(rows, (), {}, {})), evidence, asked)
    rankings = sorted((setting.ranking(asked) for setting in of_settings), key=_coverage)
    if asked.is_causal and not any(r.baseline for r in rankings):
        rankings += _of_bidirectional(others, evidence, asked)
        rankings.sort(key=_coverage)
    return Recommendation(asked, tuple(rankings), () if rankings else held(speed))


def evidences(frame: pd.DataFrame, asked: Question, *, shipped: bool) -> Evidences:
    """Return the evidence of a frame, and after it that which ships with attnbench."""
    frames = [frame, shipped_evidence()] if shipped else [frame]
    return Evidences(*frames, error_inputs=asked.error_inputs, recall_task=asked.recall_task)


def _of_bidirectional(rows: pd.DataFrame, evidence: Evidences, asked: Question) -> list[Ranking]:
    """Return rankings of causal calls whose times are predicted from bidirectional ones.

    Args:
        rows: of bidirectional calls, in the mode asked for.
        evidence: of quality.
        asked: of causal calls.
    """
    found = settings(points(Run(rows, (), {}, {})), evidence, asked)
    causal = (replace(s, values={**s.values, "is_causal": True}, is_halved=True) for s in found)
    return [setting.ranking(asked) for setting in causal]


def _coverage(ranking: Ranking) -> tuple[Any, ...]:
    known = [c.latency for c in ranking.candidates if c.latency.known]
    told = [r for r in known if r.basis != "predicted"]
    exact = [r for r in known if r.basis == "measured"]
    first = (
        ranking.baseline is None, -len(told), -len(exact), -sum(len(r.launches) for r in known),
        -len(known), -len(ranking.lengths),
    )  # fmt: skip
    return (*first, *(str(ranking.setting[c]) for c in SETTING))


@dataclass(frozen=True)
class _Series:
    """One backend with its options in one setting: its points."""

    backend: str
    options: str
    points: Sequence[Mapping[Any, Any]]

    def rows(self, metric: str) -> list[Mapping[Any, Any]]:
        return [r for r in self.points if r["metric"] == metric]


@dataclass(frozen=True)
class Setting:
    """What one setting holds for a mode: asked for several lengths, it is looked up once.

    Attributes:
        values: of `case_columns.SETTING`.
        series: its candidates.
        evidence: of their quality.
        lengths: at which anything was measured, in tokens.
        is_halved: whether the times are of bidirectional calls, and causal ones asked for.
    """

    values: Mapping[str, Any]
    series: Sequence[_Series]
    evidence: Evidences
    lengths: tuple[int, ...]
    is_halved: bool = False

    def ranking(self, asked: Question) -> Ranking:
        """Return the ranking of a question of the mode and causality that this was made for."""
        found = [_candidate(one, self.evidence, asked, self.is_halved) for one in self.series]
        found.sort(key=lambda c: c.latency.value if c.latency.known else math.inf)
        made = Ranking(self.values, tuple(found), asked, self.lengths)
        if (baseline := made.baseline) is None:
            return made
        told = (replace(c, speedup=ratio(baseline, c)) for c in found)
        return replace(made, candidates=tuple(told))


def settings(table: pd.DataFrame, evidence: Evidences, asked: Question) -> list[Setting]:
    """Return the settings that hold anything of a question's mode.

    Args:
        table: `series.points` of the question's device and causality.
        evidence: of quality.
        asked: the question; its length does not count.
    """
    return [
        _setting(values, part[part["mode"] == asked.mode], evidence)
        for values, part in rows_by(table, SETTING)
        if (part["mode"] == asked.mode).any()
    ]


def _setting(values: dict[str, Any], timed: pd.DataFrame, evidence: Evidences) -> Setting:
    names = sorted(
        {(str(b), str(o)) for b, o in zip(timed["backend"], timed["options"], strict=True)},
        key=lambda name: (rank(name[0]), name[1]),
    )
    series = [
        _Series(b, o, as_rows(timed[(timed["backend"] == b) & (timed["options"] == o)]))
        for b, o in names
    ]
    has_time = (timed["metric"] == "latency") & timed["value"].notna()
    return Setting(values, series, evidence, tuple(sorted({*timed[has_time]["seq_len"]})))


def _candidate(
    series: _Series, evidence: Evidences, asked: Question, is_halved: bool
) -> Candidate:
    quality = evidence.quality(
        series.backend, series.options, is_causal=asked.is_causal, seq_len=asked.seq_len
    )
    far: dict[str, Any] = {
        "down": math.inf if series.backend == SDPA else REACH,
        "is_exact": quality.type == "exact",
    }
    memory = series.rows(WORDS[asked.mode].memory)
    latency = at_any_length(series.rows("latency"), asked.seq_len, "expected_time", **far)
    if is_halved:
        halved = series.backend in HALVED
        latency = as_causal(latency, asked.seq_len) if halved else Reading(note=NOT_CAUSAL)
    need = at_any_length(memory, asked.seq_len, "expected_memory", **far)
    uses = serves(series.backend, quality, asked.mode, max_error=asked.max_error)
    reasons = {} if latency.known else {"latency": latency.note}
    reasons |= _unmet(quality, asked)
    if said := question.too_much_memory(need, asked.max_memory):
        reasons["max_memory"] = said
    if asked.use is not None and uses[asked.use]:
        reasons["use"] = uses[asked.use]
    return Candidate(series.backend, series.options, latency, need, quality, uses, reasons)


def _unmet(quality: Quality, asked: Question) -> dict[str, str]:
    """Return why a quality does not do: by its verdict, and by the limits."""
    said = {"quality": "" if asked.use else unfit(quality, asked.max_error)}
    if asked.bounds_quality:
        error, recall = quality.find("relative_error"), quality.find("accuracy")
        said["max_error"] = (
            "" if quality.type == "exact" else question.too_far(error, asked.max_error)
        )
        said["min_recall"] = question.too_forgetful(recall, asked.min_recall)
    return {name: text for name, text in said.items() if text}
