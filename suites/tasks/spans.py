"""Span corruption: spans of a text hidden in the input, for a decoder to write.

Raffel et al. 2020, arXiv 1910.10683, section 3.1.4. The input has a sentinel in the place of each
span; the target is each sentinel followed by its span, and an end. The numbers of bytes and of
spans that are hidden are fixed by the length; where they lie is chosen, uniformly over the ways to
part a text into kept and hidden stretches of at least one byte each, beginning with a kept one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spans:
    """How a text is taken apart.

    Attributes:
        text: bytes of a text.
        hidden: of them, in the target.
        count: spans, each behind a sentinel.
    """

    text: int
    hidden: int
    count: int

    @property
    def inputs(self) -> int:
        """Tokens of the input: what is kept, and the sentinels."""
        return self.text - self.hidden + self.count

    @property
    def targets(self) -> int:
        """Tokens of the target: what is hidden, the sentinels, and the end."""
        return self.hidden + self.count + 1

    @property
    def draws(self) -> int:
        """Uniform numbers that one text takes."""
        return self.text - 2


def fit(inputs: int, *, density: float, mean: float) -> Spans:
    """Return the longest text that fills an input exactly.

    Args:
        inputs: tokens of the input, at least 4.
        density: share of the text that is hidden, above 0 and at most 0.5.
        mean: length of a span in bytes, at least 1.
    """
    spans, text = None, inputs
    while True:
        hidden = max(int(text * density), 1)  # not more than is kept
        tried = Spans(text, hidden, max(round(hidden / mean), 1))
        if tried.inputs > inputs:
            break
        spans, text = tried, text + 1
    assert spans is not None  # one hidden byte behind one sentinel leaves the length as it is
    assert spans.inputs == inputs  # a byte more makes an input at most one token longer
    return spans


def corrupt(
    text: NDArray[np.int64],
    draws: NDArray[np.float64],
    spans: Spans,
    *,
    sentinel: int,
    end: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the inputs and targets of texts.

    Args:
        text: int64 ``[B, spans.text]``.
        draws: uniform in [0, 1), float64 ``[B, spans.draws]``.
        spans: how much is hidden.
        sentinel: id of the first sentinel; the next have the next ids.
        end: id that ends a target.

    Returns:
        int64 ``[B, spans.inputs]`` and ``[B, spans.targets]``.
    """
    rows, kept = len(text), spans.text - spans.hidden
    hidden_lengths = _parts(draws[:, : spans.hidden - 1], spans.hidden, spans.count)
    kept_lengths = _parts(draws[:, spans.hidden - 1 :], kept, spans.count)
    starts = np.cumsum(kept_lengths + hidden_lengths, axis=1) - hidden_lengths
    first = np.zeros(text.shape, np.int64)
    np.put_along_axis(first, starts, 1, axis=1)
    step = first.copy()  # +1 where a span begins, -1 behind it: the sum is 1 inside
    behind = starts + hidden_lengths
    step = np.concatenate([step, np.zeros((rows, 1), np.int64)], axis=1)
    np.put_along_axis(step, behind, np.take_along_axis(step, behind, axis=1) - 1, axis=1)
    inside = np.cumsum(step[:, :-1], axis=1) == 1
    marks = sentinel + np.arange(spans.count)
    inputs = text.copy()
    np.put_along_axis(inputs, starts, np.broadcast_to(marks, starts.shape), axis=1)
    inputs = inputs[~inside | (first == 1)].reshape(rows, spans.inputs)

    targets = np.full((rows, spans.targets), end, np.int64)
    number = np.arange(spans.count)
    marked = np.cumsum(hidden_lengths, axis=1) - hidden_lengths + number
    np.put_along_axis(targets, marked, np.broadcast_to(marks, marked.shape), axis=1)
    free = np.ones(targets.shape, np.bool_)
    np.put_along_axis(free, marked, False, axis=1)
    free[:, -1] = False
    targets[free] = text[inside]
    return inputs, targets


def _parts(draws: NDArray[np.float64], total: int, count: int) -> NDArray[np.int64]:
    """Part `total` into `count` lengths of at least one, uniformly: ``[B, count]``."""
    cuts = np.sort(np.argsort(draws, axis=1)[:, : count - 1], axis=1) + 1
    rows = len(draws)
    edges = np.concatenate(
        [np.zeros((rows, 1), np.int64), cuts, np.full((rows, 1), total)], axis=1
    )
    return np.diff(edges, axis=1)
