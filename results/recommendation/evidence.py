"""Evidence looked up in frames: what models learnt with a backend, and its errors, by options."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results.recommendation.quality import (
    LANGUAGE,
    OBJECTIVES,
    RECALL,
    SPEED_INPUTS,
    TRAINED,
    USELESS,
    Evidence,
    Quality,
)
from results.records.frames import as_rows
from results.statistics.seeds import labels_of, of_seeds, spread
from results.text import numbers
from results.text.clean import clean
from results.text.labels import name_of, options_of
from results.text.method_types import is_rounding, method_type, needs_training

SDPA = "sdpa"
"""Whose score stands beside that of others."""

_TRAINING = ("machine", "environment", "version", "task", "is_causal", "seq_len", "training",
             "model", "batch", "device", "dtype")  # fmt: skip
"""What is equal of two scores that stand beside each other."""

_VIEWS = ("steps", "operations", "time")
"""Views of a training, the one first that does not depend on the machine."""

_Row = Mapping[Any, Any]


class Evidences:
    """All evidence of some frames, looked up by backend and options.

    Args:
        frames: tidy frames; what stands in an earlier one counts before a later one's.
        error_inputs: the inputs on which an error counts, as ``gaussian:scale=1``; None = those
            of a trained model first, then random ones.
        recall_task: the task whose accuracy counts, as ``recall:num_pairs=8``; None = any recall.
    """

    def __init__(
        self,
        *frames: pd.DataFrame,
        error_inputs: str | None = None,
        recall_task: str | None = None,
    ) -> None:
        self._tasks = [_trainings(frame, recall_task) for frame in frames]
        self._errors = [_errors(frame, error_inputs) for frame in frames]
        self._scores: dict[tuple[str, str, str, bool], Evidence | None] = {}

    def quality(self, backend: str, options: str, *, is_causal: bool, seq_len: int = 0) -> Quality:
        """Return what is known of a backend with its options.

        What was learnt may be of other options, as a window of a shorter text: they are named. An
        error is of the same ones. The same form, causal or bidirectional, comes first.

        Args:
            backend: its name.
            options: as the command line writes them.
            is_causal: the form that is asked for.
            seq_len: tokens: an error is that at the nearest length; 0 = at the longest.
        """
        learnt = [
            found
            for task in (LANGUAGE, RECALL)
            if (found := self._learnt(task, backend, options, is_causal)) is not None
        ]
        errors = list(self._of_inputs(backend, options, is_causal, seq_len))
        kind = method_type(backend, options, is_exact=any(one.is_rounding for one in errors))
        if kind == "sparse" and 0 < seq_len <= self._covered(backend, options, is_causal):
            kind = "exact"
        return Quality(kind, (*learnt, *errors))

    def _covered(self, backend: str, options: str, is_causal: bool) -> int:
        """Return the longest input on which a sparse pattern was seen to be exact; 0 = none.

        A pattern that covers all keys of an input covers those of a shorter one, and of a causal
        call.
        """
        rows = [
            row
            for by_name in self._errors
            for row in by_name.get((backend, options), [])
            if row["is_causal"] == is_causal or not row["is_causal"]
        ]
        exact: dict[int, bool] = {}
        for row in rows:
            length = int(row["seq_len"])
            was = is_rounding(float(row["value"]), str(row["dtype"]))
            exact[length] = exact.get(length, True) and was
        return max((n for n, always in exact.items() if always), default=0)

    def _learnt(self, task: str, backend: str, options: str, is_causal: bool) -> Evidence | None:
        asked = task, backend, options, is_causal
        if asked not in self._scores:  # a page asks for hundreds of lengths
            self._scores[asked] = self._score(*asked)
        return self._scores[asked]

    def _score(self, task: str, backend: str, options: str, is_causal: bool) -> Evidence | None:
        for trainings in self._tasks:
            is_text = task == LANGUAGE
            found = [t for t in trainings if (name_of(str(t[0]["task"])) == LANGUAGE) == is_text]
            of = [t for t in found if (t[1]["backend"] == backend).any()]
            if of:
                at, rows = min(of, key=lambda t: _order(t, backend, options, is_causal))
                return _score(at, rows, backend, options, is_causal)
        return None

    def _of_inputs(
        self, backend: str, options: str, is_causal: bool, seq_len: int
    ) -> Iterator[Evidence]:
        found: dict[str, list[_Row]] = {}
        for by_name in self._errors:
            own: dict[str, list[_Row]] = {}
            for row in by_name.get((backend, options), []):
                own.setdefault(str(row["inputs"]), []).append(row)
            found = {**own, **found}
        for inputs in sorted(found, key=_rank_of_inputs):
            yield _error(found[inputs], backend, options, is_causal, seq_len)


# -- what was learnt -----------------------------------------------------------------------------

_Training = tuple[Mapping[str, Any], pd.DataFrame]


def _trainings(frame: pd.DataFrame, recall_task: str | None) -> list[_Training]:
    """Return the trainings of the tasks that count, each with its rows."""
    rows = frame[frame["kind"] == "task"]
    rows = rows[np.array([_counts(str(t), recall_task) for t in rows["task"]], dtype=bool)]
    if rows.empty:
        return []
    parts = rows.groupby(list(_TRAINING), sort=False)
    return [(dict(zip(_TRAINING, key, strict=True)), part) for key, part in parts]


def _counts(task: str, recall_task: str | None) -> bool:
    """Whether a task says something of an attention: text of one sequence, or the recall asked."""
    if name_of(task) == LANGUAGE:
        return options_of(task).get("objective", "") in OBJECTIVES
    return name_of(task) == RECALL if recall_task is None else task == recall_task


def _order(training: _Training, backend: str, options: str, is_causal: bool) -> tuple[Any, ...]:
    """Return the sort key of a training: that which says most of a backend first."""
    at, rows = training
    answered = rows[rows["value"].notna() & (rows["metric"] != "")]
    takers = set(zip(answered["backend"], answered["options"], strict=True))
    names = {name for name, _ in takers}
    view = str(at["training"]).partition(":")[0]
    return (
        bool(at["is_causal"]) != is_causal, backend not in names, SDPA not in names,
        (backend, options) not in takers, -len(takers),
        _VIEWS.index(view) if view in _VIEWS else len(_VIEWS), -int(at["seq_len"]), str(at),
    )  # fmt: skip


def _score(
    at: Mapping[str, Any], rows: pd.DataFrame, backend: str, options: str, is_causal: bool
) -> Evidence | None:
    """Return what a backend reached in a training, beside `sdpa`; None if it has no score."""
    own = rows[rows["backend"] == backend]
    taken = list(dict.fromkeys(own["options"]))
    chosen = options if options in taken else taken[0]
    own = own[own["options"] == chosen]
    metric = "bits_per_byte" if name_of(str(at["task"])) == LANGUAGE else "accuracy"
    good = own[own["metric"] == metric]
    scores = good.groupby("seed")["value"].mean().to_numpy(np.float64)
    if not len(scores):
        return None
    top = 1.0 if metric == "accuracy" else math.inf
    labels = labels_of(good) if metric == "accuracy" else math.nan
    found = spread(scores, low=0.0, high=top, num_labels=labels)
    beside = rows[(rows["backend"] == SDPA) & (rows["metric"] == metric)]
    few = of_seeds(len(scores), own["seed"].nunique())
    return Evidence(
        "learnt", metric, found.mean, found.ci_low, found.ci_high,
        exact=float(beside.groupby("seed")["value"].mean().mean()) if len(beside) else math.nan,
        chance=float(good["chance"].median()) if metric == "accuracy" else math.nan,
        on=str(at["task"]),
        setting=_setting(at, "" if chosen == options else chosen, is_causal),
        lacking=few,
        is_itself=backend == SDPA,
    )  # fmt: skip


# -- errors --------------------------------------------------------------------------------------


def _errors(frame: pd.DataFrame, inputs: str | None) -> dict[tuple[str, str], list[_Row]]:
    """Return the rows of relative errors by backend and options; kind speed's own among them."""
    rows = frame[
        frame["kind"].isin(["error", "speed"]) & (frame["metric"] == "relative_error")
        & (frame["level"] == "attention") & (frame["key_len"] == frame["seq_len"])
    ]  # fmt: skip
    rows = rows.assign(inputs=rows["inputs"].where(rows["kind"] == "error", SPEED_INPUTS))
    if inputs is not None:
        rows = rows[rows["inputs"] == inputs]
    found: dict[tuple[str, str], list[_Row]] = {}
    columns = ["backend", "options", "inputs", "seq_len", "is_causal", "num_heads", "head_dim",
               "dtype", "value"]  # fmt: skip
    for row in as_rows(rows[columns]):
        found.setdefault((row["backend"], row["options"]), []).append(row)
    return found


def _rank_of_inputs(inputs: str) -> tuple[bool, bool, str]:
    return name_of(inputs) != TRAINED, inputs != SPEED_INPUTS, inputs


def _error(
    rows: Sequence[_Row], backend: str, options: str, is_causal: bool, seq_len: int
) -> Evidence:
    """Return the error on some inputs, at the nearest length: the median over launches."""

    def far(row: _Row) -> tuple[bool, float]:
        length = int(row["seq_len"])
        away = abs(math.log(length / seq_len)) if seq_len else -length
        return bool(row["is_causal"]) != is_causal, away

    nearest = min(map(far, rows))
    own = [row for row in rows if far(row) == nearest]
    values = [float(row["value"]) for row in own]
    inputs, value = str(own[0]["inputs"]), float(np.median(values))
    return Evidence(
        "trained inputs" if name_of(inputs) == TRAINED else "random inputs",
        "relative_error", value, min(values), max(values), on=inputs,
        setting=_setting(own[0], "", is_causal),
        counts=value <= USELESS and not needs_training(backend, options),
        is_untrained=needs_training(backend, options),
        is_rounding=all(is_rounding(float(row["value"]), str(row["dtype"])) for row in own),
    )  # fmt: skip


def _setting(at: Mapping[str, Any], options: str, is_causal: bool) -> str:
    """Return the setting that evidence was taken in, in words: ``256 tokens, window=32``."""
    form = "causal" if at["is_causal"] else "bidirectional"
    parts = [
        f"{numbers.tokens(at['seq_len'])} tokens", clean(options.replace(",", ", ")),
        form if bool(at["is_causal"]) != is_causal else "",
    ]  # fmt: skip
    return ", ".join(part for part in parts if part)
