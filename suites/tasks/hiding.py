"""Hide parts of a text, to be predicted: tokens from both sides, or spans that a decoder writes.

`hide` makes the masked language model's input (Devlin et al. 2019, arXiv 1810.04805, section 3.1):
of the chosen tokens 80 % are masked, 10 % replaced by any token, 10 % kept. As
`models.objectives.mask_tokens`, but from a task's random numbers, and with a share of each row's
tokens that is fixed and not a chance. `next_tokens` hides nothing: what follows is asked.

`corrupt` hides spans (Raffel et al. 2020, arXiv 1910.10683, section 3.1.4). The input has a
sentinel in the place of each span; the target is each sentinel followed by its span, and an end.
The numbers of bytes and of spans that are hidden are fixed by the length; where they lie is
chosen, uniformly over the ways to part a text into kept and hidden stretches of at least one byte
each, beginning with a kept one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.objectives import IGNORED
from suites.tasks.base import Bools, Ints

DRAWS = 3
"""Uniform numbers that a token takes: whether it is chosen, what becomes of it, and which."""


def hide(
    ids: Ints,
    draws: NDArray[np.float64],
    *,
    density: float,
    mask_id: int,
    ordinary: int,
    allowed: Bools | None = None,
) -> tuple[Ints, Ints]:
    """Return inputs and labels; a row has ``density`` of its allowed tokens hidden, at least one.

    Args:
        ids: int64 ``[B, N]``.
        draws: uniform in [0, 1), float64 ``[B, DRAWS, N]``.
        density: share of the tokens that is chosen, rounded to whole tokens.
        mask_id: what stands for a masked token.
        ordinary: a replacement is an id below it.
        allowed: bool ``[B, N]``, what may be chosen, at least one of each row; ``None`` = all.

    Returns:
        Two int64 ``[B, N]``; a label is `IGNORED` where nothing is asked.
    """
    choice, kind, other = draws.swapaxes(0, 1)
    if allowed is not None:
        choice = np.where(allowed, choice, 1.0)
    tokens = np.full(len(ids), ids.shape[1]) if allowed is None else allowed.sum(axis=1)
    count = np.maximum(np.rint(tokens * density).astype(np.int64), 1)
    largest = np.take_along_axis(np.sort(choice, axis=1), count[:, None] - 1, axis=1)
    chosen = choice <= largest
    inputs = np.where(chosen & (kind < 0.8), mask_id, ids)
    replaced = chosen & (kind >= 0.9)
    inputs = np.where(replaced, (other * ordinary).astype(np.int64), inputs)
    return inputs, np.where(chosen, ids, IGNORED)


def next_tokens(ids: Ints, is_token: Bools) -> Ints:
    """Return labels ``[B, N]``: at each place the token behind it, where there is one."""
    labels = np.full_like(ids, IGNORED)
    labels[:, :-1] = np.where(is_token[:, 1:], ids[:, 1:], IGNORED)
    return labels


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
    text: Ints,
    draws: NDArray[np.float64],
    spans: Spans,
    *,
    sentinel: int,
    end: int,
) -> tuple[Ints, Ints]:
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
    rows, visible = len(text), spans.text - spans.hidden
    hidden_lengths = _parts(draws[:, : spans.hidden - 1], spans.hidden, spans.count)
    kept_lengths = _parts(draws[:, spans.hidden - 1 :], visible, spans.count)
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


def _parts(draws: NDArray[np.float64], total: int, count: int) -> Ints:
    """Part `total` into `count` lengths of at least one, uniformly: ``[B, count]``."""
    cuts = np.sort(np.argsort(draws, axis=1)[:, : count - 1], axis=1) + 1
    rows = len(draws)
    edges = np.concatenate(
        [np.zeros((rows, 1), np.int64), cuts, np.full((rows, 1), total)], axis=1
    )
    return np.diff(edges, axis=1)
