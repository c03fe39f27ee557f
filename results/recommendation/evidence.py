"""What is known of a backend's quality: its error against exact softmax, and what it recalls.

Both are looked up for the same backend with the same options and causality, or they are not known:
another window's error is no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results.analysis.series import summarise
from results.recommendation.interpolation import Reading, Row, at_length
from results.statistics.seeds import labels_of, of_seeds, spread
from results.text import numbers
from results.text.clean import clean
from results.text.labels import name_of

SPEED_SCALE = 0.3
SPEED_INPUTS = f"gaussian:scale={SPEED_SCALE:g}"
"""What the errors in records of kind speed are taken on: normal q, k and v of this scale."""

RECALL = "recall"
"""The task whose accuracy is recall, with any options."""

_MOST_OTHERS = 3

_VIEWS = ("steps", "operations", "time")
"""Views of a training, the one first that does not depend on the machine."""


# -- error ---------------------------------------------------------------------------------------


def error_rows(kind_error: pd.DataFrame) -> dict[str, list[Row]]:
    """Return the relative L2 errors of one backend by the inputs of kind error, a row a length.

    Args:
        kind_error: the tidy rows of kind error of one backend with its options; several cases of
            one length and inputs are launches of one.
    """
    return {
        str(inputs): _rows(rows, "relative_error") for inputs, rows in kind_error.groupby("inputs")
    }


def errors_of(by_inputs: Mapping[str, Sequence[Row]], seq_len: int) -> dict[str, Reading]:
    """Return the relative L2 errors at a length, by inputs.

    Args:
        by_inputs: of `error_rows`.
        seq_len: in tokens.
    """
    return {
        inputs: replace(at_length(rows, seq_len, grows=False), on=f"{inputs} (kind error)")
        for inputs, rows in by_inputs.items()
    }


def error_of(
    own: Sequence[Sequence[Row]],
    by_inputs: Mapping[str, Reading],
    seq_len: int,
    inputs: str | None,
) -> Reading:
    """Return the relative L2 error of one series at a length.

    Args:
        own: its rows of metric ``relative_error`` in the records of kind speed, a list a mode; the
            first that says something of this length counts.
        by_inputs: of `errors_of`.
        seq_len: in tokens.
        inputs: of kind error, as ``gaussian:scale=1``; None takes kind speed's own, and where it
            has none at this length the Gaussian inputs of the scale nearest to those.
    """
    unknown = Reading(note="never measured")
    if inputs is not None:
        return by_inputs.get(inputs, unknown)
    speed = [at_length(rows, seq_len, grows=False) for rows in own if rows]
    for read in speed:
        if read.known:
            return replace(read, on=f"{SPEED_INPUTS} (kind speed)")
    nearest = sorted((d, text) for text in by_inputs if (d := _distance(text)) < math.inf)
    gaussian = [by_inputs[text] for _, text in nearest]
    return next((read for read in gaussian if read.known), (*gaussian, *speed, unknown)[0])


def _distance(inputs: str) -> float:
    """Return how far Gaussian inputs are from kind speed's, by the factor; inf = no Gaussian."""
    name, _, rest = inputs.partition(":")
    options = dict(part.partition("=")[::2] for part in rest.split(","))
    try:
        scale = float(options.get("scale", "1"))
    except ValueError:
        return math.inf
    if name != "gaussian" or not 0 < scale < math.inf:
        return math.inf
    return abs(math.log(scale / SPEED_SCALE))


def _rows(frame: pd.DataFrame, metric: str) -> list[Row]:
    """Return a row a length, as `series.points` has them."""
    found: list[Row] = []
    for length, part in frame.groupby("seq_len"):
        rows = [r for r in summarise(part) if r["metric"] == metric or math.isnan(r["value"])]
        found += [{**row, "seq_len": length} for row in rows[:1]]
    return found


# -- recall --------------------------------------------------------------------------------------


class Exam(NamedTuple):
    """One question put to several backends: only answers to the same one compare."""

    machine: str
    version: str
    task: str
    training: str
    seq_len: int
    batch: int
    device: str
    dtype: str
    model: str

    @property
    def words(self) -> str:
        """What accuracy was measured on, with its length and training."""
        return f"{self.task} at {self.seq_len:,} tokens, {self.training}"


def recall_rows(frame: pd.DataFrame, task: str | None) -> pd.DataFrame:
    """Return the rows of kind task that say how much is recalled.

    Args:
        frame: the tidy frame.
        task: the one that counts, as ``recall:num_pairs=8``; None = every recall task.
    """
    named = frame["task"].astype(str)
    wanted = (named.map(name_of) == RECALL) if task is None else named == task
    return frame[(frame["kind"] == "task") & wanted]


def choose_exam(
    rows: pd.DataFrame, series: Sequence[tuple[str, str]], machine: str, seq_len: int
) -> Exam | None:
    """Return the question that most of the series answered; None if none of them answered any.

    Of those, the one put on the same machine, the nearest in length, trained by equal steps before
    equal operations and equal time.

    Args:
        rows: of `recall_rows`.
        series: backends with their options.
        machine: that of the ranking.
        seq_len: the length asked for, in tokens.
    """
    answered = rows[rows["metric"] == "accuracy"]
    if answered.empty:
        return None
    best: tuple[Any, ...] | None = None
    found: Exam | None = None
    for key, part in answered.groupby(list(Exam._fields)):
        exam = Exam(*key)
        takers = set(zip(part["backend"], part["options"], strict=True))
        view = exam.training.partition(":")[0]
        order = (
            -len(takers & set(series)), exam.machine != machine,
            abs(math.log(max(exam.seq_len, 1) / seq_len)),
            _VIEWS.index(view) if view in _VIEWS else len(_VIEWS), exam,
        )  # fmt: skip
        if order[0] and (best is None or order < best):
            best, found = order, exam
    return found


def recall_of(rows: pd.DataFrame, exam: Exam | None, backend: str, options: str) -> Reading:
    """Return the mean accuracy over seeds with the interval of `seeds.spread`."""
    if rows.empty:
        return Reading(note="never measured")
    own = rows[(rows["backend"] == backend) & (rows["options"] == options)]
    if exam is not None:
        for name, value in exam._asdict().items():
            own = own[own[name] == value]
    if exam is None or own.empty:
        return Reading(note=_unanswered(rows[rows["backend"] == backend], options))
    answers = own[own["metric"] == "accuracy"]
    scores = answers.groupby("seed")["value"].mean().to_numpy(np.float64)
    bad = own[~own["seed"].isin(answers["seed"])]
    failed = f"{bad['status'].iloc[0]}: {bad['reason'].iloc[0]}" if len(bad) else ""
    if not len(scores):
        return Reading(note=failed or "never measured", on=exam.words)
    found = spread(scores, low=0.0, high=1.0, num_labels=labels_of(answers))
    few = of_seeds(len(scores), own["seed"].nunique())
    count = few or ("one seed" if len(scores) == 1 else f"{len(scores)} seeds")
    has_interval = math.isfinite(found.ci_low)
    return Reading(
        found.mean, found.ci_low, found.ci_high,
        note=count if has_interval else f"{count}: no interval", on=exam.words, launches=scores,
        lacking=f"{few}, {failed}" if few else "",
    )  # fmt: skip


def _unanswered(of_backend: pd.DataFrame, options: str) -> str:
    """Say that a backend has no recall with its options, and with which others it has."""
    answered = list(dict.fromkeys(of_backend[of_backend["metric"] == "accuracy"]["options"]))
    if options in answered:
        return "never measured by the question that counts, only by another"
    others = [clean(o) or "its defaults" for o in answered]
    more = len(others) - _MOST_OTHERS
    named = [*others[:_MOST_OTHERS], *([f"{more} more"] if more > 0 else [])]
    return f"never measured; only with {numbers.listing(named)}" if others else "never measured"
