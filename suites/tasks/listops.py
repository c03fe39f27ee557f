"""ListOps: the value of a nested expression over digits.

Tay et al. 2020 (Long Range Arena), arXiv 2011.04006, section 2.2.1. The grammar stands in
`suites.tasks.expressions`. The value is asked at the expression's last bracket, its last token;
padding stands behind (``.``)::

    ids     [MAX 4 [SM 7 9 ] 2 ] . .
    labels    .  .  .  . . . . 6 . .

Self-pretraining (Amos et al. 2023, arXiv 2310.02980) reads the same expressions: in the
bidirectional form a share of the tokens is masked and asked, in the causal one the next token is
asked everywhere.

Where this differs from the original code: its lengths exclude both bounds (500 and 2000), ours
include them; its files hold redundant parentheses, which its own count of the length leaves out,
and its tokenizer keeps letters and digits alone, so that the nesting is lost: here the closing
bracket is a token, and nothing is redundant; it draws 100,000 expressions once, we draw anew for
every batch.

Ids: 0 padding, 1 mask, digits from 2, operators from 12 (MAX, MIN, MED, SM), 16 the closing
bracket. What the splits do not share is an expression.
"""

from __future__ import annotations

import functools

import numpy as np

from attention.checks import check_float, check_int
from suites.tasks.base import IGNORED, Batch, Form, Ints, Split, Task, generator, of_split
from suites.tasks.drawing import unasked
from suites.tasks.expressions import (
    OPERATORS,
    SHORTEST,
    Expressions,
    grow,
    length_probabilities,
    select,
)
from suites.tasks.hiding import next_tokens
from suites.tasks.registry import register

PADDING = 0
MASK = 1
FIRST_DIGIT = 2
FIRST_OPERATOR = FIRST_DIGIT + 10
BRACKET = FIRST_OPERATOR + len(OPERATORS)

RAREST = 1e-4
"""Share of the grammar's expressions that must be within the bounds, or drawing takes too long."""

CHANCE_SAMPLE = 8192
"""Expressions whose most frequent value's share is `ListOps.chance`."""


@register("listops")
class ListOps(Task):
    """Nested expressions of MAX, MIN, MED and SM over digits.

    `chance` is the share of the most frequent value among 8192 expressions of a fixed seed: bounds
    on the length leave no closed form.

    Args:
        seq_len: N, tokens.
        form: causal or bidirectional; they differ in the self-pretraining alone.
        min_len: tokens of an expression, at least; ``None`` = a quarter of `max_len`, as Long
            Range Arena's 500 are of 2000.
        max_len: at most; ``None`` = `seq_len`.
        max_depth: of the tree, its digits included.
        max_args: arguments of an operator, at most.
        mask_ratio: share of the tokens that self-pretraining masks in the bidirectional form.

    Raises:
        ValueError: if no expression has such a length, or one in ten thousand at most; the message
            names `min_len`.
    """

    summary = "the value of a nested expression over digits"
    paper = "Tay et al. 2020, arXiv 2011.04006"
    default_seq_len = 2000

    def __init__(
        self,
        *,
        seq_len: int,
        form: Form,
        min_len: int | None = None,
        max_len: int | None = None,
        max_depth: int = 10,
        max_args: int = 10,
        mask_ratio: float = 0.15,
    ) -> None:
        super().__init__(seq_len=seq_len, form=form)
        longest = seq_len if max_len is None else max_len
        self.max_len = check_int("max_len", longest, minimum=SHORTEST)
        if self.max_len > seq_len:
            raise ValueError(f"max_len: expected at most seq_len={seq_len}, got {max_len}")
        self.min_len = check_int(
            "min_len", self.max_len // 4 if min_len is None else min_len, minimum=1
        )
        if self.min_len > self.max_len:
            raise ValueError(f"min_len: expected at most max_len={self.max_len}, got {min_len}")
        self.max_depth = check_int("max_depth", max_depth, minimum=2)
        self.max_args = check_int("max_args", max_args, minimum=2)
        self.mask_ratio = check_float("mask_ratio", mask_ratio, above=0.0, below=1.0)
        lengths = length_probabilities(
            max_depth=max_depth, max_args=max_args, max_len=self.max_len
        )
        self._accepted = float(lengths[self.min_len :].sum())
        if self._accepted < RAREST:
            raise ValueError(
                f"min_len: of the expressions with max_depth={max_depth} and max_args={max_args}, "
                f"{self._accepted:.1g} have {self.min_len} to {self.max_len} tokens; expected "
                f"bounds that at least {RAREST:g} meet"
            )
        self.vocab_size = BRACKET + 1

    @functools.cached_property
    def chance(self) -> float:  # type: ignore[override]  # the base's attribute is never written
        """The share of the most frequent value."""
        values: Ints = np.empty(0, dtype=np.int64)
        rng = generator(0, 0, "test")
        while len(values) < CHANCE_SAMPLE:
            drawn, _ = self._grow(rng, 512)
            values = np.concatenate([values, drawn.values()])
        return float(np.bincount(values).max() / len(values))

    def batch(self, size: int, *, seed: int, index: int, split: Split) -> Batch:
        """Return a batch; see `Task.batch`."""
        ids, lengths, values = self._draw(generator(seed, index, split), size, split)
        labels = unasked(size, self.seq_len)
        labels[np.arange(size), lengths - 1] = FIRST_DIGIT + values
        tokens = np.arange(self.seq_len) < lengths[:, None]
        return Batch.of(ids, labels, key_padding_mask=tokens)

    def pretraining(self, size: int, *, seed: int, index: int) -> Batch:
        """Return the expressions of a training batch with their own tokens as labels.

        Masked tokens in the bidirectional form (`mask_ratio` of them, and all that are asked show
        the mask), the next token in the causal one.
        """
        rng = generator(seed, index, "train")
        ids, lengths, _ = self._draw(rng, size, "train")
        tokens = np.arange(self.seq_len) < lengths[:, None]
        if self.form == "causal":
            labels = next_tokens(ids, tokens)
        else:
            is_hidden = (rng.random(ids.shape) < self.mask_ratio) & tokens
            # Of a short expression maybe none was drawn; a batch that asks nothing has no loss.
            is_hidden[~is_hidden.any(axis=1), 0] = True
            labels = np.where(is_hidden, ids, IGNORED)
            ids = np.where(is_hidden, MASK, ids)
        return Batch.of(ids, labels, key_padding_mask=tokens)

    def _draw(self, rng: np.random.Generator, size: int, split: Split) -> tuple[Ints, ...]:
        """Draw ids, lengths and values of `size` expressions of a split."""

        def draw(count: int) -> tuple[Ints, ...]:
            drawn, lengths = self._grow(rng, count)
            ids = np.full((len(lengths), self.seq_len), PADDING, dtype=np.int64)
            drawn.write(ids, digit=FIRST_DIGIT, operator=FIRST_OPERATOR, bracket=BRACKET)
            return ids, lengths, drawn.values()

        return of_split(split, size, draw)

    def _grow(self, rng: np.random.Generator, count: int) -> tuple[Expressions, Ints]:
        """Draw about `count` expressions within the bounds, and their lengths."""
        levels, lengths = grow(
            rng,
            int(count / self._accepted) + 1,
            max_depth=self.max_depth,
            max_args=self.max_args,
            max_len=self.max_len,
        )
        fits = (lengths >= self.min_len) & (lengths <= self.max_len)
        return Expressions.draw(rng, select(levels, fits)), lengths[fits]
