"""Multi-query associative recall: which value stood behind this key?

Arora et al. 2023 (Zoology), arXiv 2312.04927, section 4. Pairs of key and value come first, then
some of the keys again; at a key that comes again its value is asked. Keys and values have
vocabularies of their own and do not repeat among the pairs of a sequence. ``vocab_size=9``, two
pairs (``a``, ``c`` keys; ``x``, ``z`` values; ``_`` blank)::

    ids     c z a x _ _ a _ c _
    labels  . . . . . . x . z .

Both forms read the same sequence: nothing behind a query depends on its answer. A query's group is
its distance to the key's first place, in tokens.

In training, and in the bidirectional form alone, a key's value is asked at its first place too,
where it is the next token (group 1). A causal model finds its neighbour by itself, since the first
tokens see hardly anything else; one that looks both ways learns to look ahead from these labels,
and without them stays at guessing among the sequence's values for thousands of steps. The test
split asks the queries alone.

Ids: 0 blank, keys from 1, values behind them (a half each, the odd one a value).
What the splits do not share is a set of pairs, in whatever order.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from attention.checks import check_choice, check_float, check_int
from suites.tasks.base import Form, Ints, check_contents
from suites.tasks.drawing import DrawnTask, Question, distinct, integers, put, weighted
from suites.tasks.registry import register

Gaps = Literal["uniform", "power"]
Filler = Literal["blank", "noise"]

BLANK = 0
FIRST_KEY = 1


@register("recall")
class Recall(DrawnTask):
    """Pairs of key and value, then keys whose values are asked.

    Args:
        seq_len: N, tokens.
        form: causal or bidirectional; the sequences are the same.
        num_pairs: key-value pairs in front.
        num_queries: keys that come again, each once; ``None`` = all.
        vocab_size: ids: the blank, keys and values.
        gaps: where queries stand behind the pairs: near them by the paper's power law, or
            anywhere alike (learnt later, because more blanks stand before a query).
        power: of that law: a place ``g`` tokens behind the pairs has weight
            ``g^(power - 1)``; the paper's 0.01, and 1 = uniform.
        min_gap: tokens behind the pairs where no query stands: all distances are larger.
        filler: what stands between the queries: the blank, or noise: any key or value, as in the
            paper's code (a key among it is not asked).

    Raises:
        ValueError: if there are more pairs than keys or values, more queries than pairs, or they
            do not fit into the sequence.
    """

    summary = "which value stood behind this key? several pairs, several queries"
    paper = "Arora et al. 2023, arXiv 2312.04927"
    group = "distance"

    def __init__(
        self,
        *,
        seq_len: int,
        form: Form,
        num_pairs: int = 4,
        num_queries: int | None = None,
        vocab_size: int = 64,
        gaps: Gaps = "power",
        power: float = 0.01,
        min_gap: int = 0,
        filler: Filler = "blank",
    ) -> None:
        super().__init__(seq_len=seq_len, form=form)
        self.num_pairs = check_int("num_pairs", num_pairs, minimum=1)
        asked = num_pairs if num_queries is None else num_queries
        self.num_queries = check_int("num_queries", asked, minimum=1)
        if self.num_queries > num_pairs:
            raise ValueError(
                f"num_queries: expected at most num_pairs={num_pairs} (each key is asked once), "
                f"got {num_queries}"
            )
        self.vocab_size = check_int("vocab_size", vocab_size, minimum=3)
        self.num_keys = (vocab_size - FIRST_KEY) // 2
        self.first_value = FIRST_KEY + self.num_keys
        self.num_values = vocab_size - self.first_value
        if num_pairs > self.num_keys:
            raise ValueError(
                f"num_pairs: expected at most {self.num_keys}, the keys of "
                f"vocab_size={vocab_size}, got {num_pairs}"
            )
        values = math.perm(self.num_values, num_pairs)
        check_contents("vocab_size", vocab_size, math.comb(self.num_keys, num_pairs) * values)
        self.gaps = check_choice("gaps", gaps, get_args(Gaps))
        self.power = check_float("power", power, above=0.0)
        self.min_gap = check_int("min_gap", min_gap, minimum=0)
        self.filler = check_choice("filler", filler, get_args(Filler))
        self.first_place = 2 * num_pairs + min_gap
        if self.first_place + self.num_queries > seq_len:
            raise ValueError(
                f"num_pairs: {num_pairs} pairs, a gap of {min_gap} and {self.num_queries} queries "
                f"take {self.first_place + self.num_queries} tokens; expected at most "
                f"seq_len={seq_len}"
            )
        self.chance = 1.0 / self.num_values

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, ...]:
        """Draw sets of pairs, their keys and their values: ``[B, pairs]`` each."""
        keys = FIRST_KEY + distinct(rng, count, self.num_pairs, self.num_keys)
        values = self.first_value + distinct(rng, count, self.num_pairs, self.num_values)
        return np.sort(keys * self.vocab_size + values, axis=1), keys, values

    def write(self, rng: np.random.Generator, *drawn: Ints) -> tuple[Ints, Question, Question]:
        """Write the pairs and the queries; the hint asks each value at its key's first place."""
        _, keys, values = drawn
        size = len(keys)
        which = distinct(rng, size, self.num_queries, self.num_pairs)  # [B, queries]
        places = self._places(rng, size)
        ids = np.full((size, self.seq_len), BLANK, dtype=np.int64)
        if self.filler == "noise":
            ids[:] = FIRST_KEY + integers(rng, self.vocab_size - FIRST_KEY, *ids.shape)
        first = np.broadcast_to(2 * np.arange(self.num_pairs), keys.shape)
        put(ids, first, keys)
        put(ids, first + 1, values)
        put(ids, places, np.take_along_axis(keys, which, axis=1))
        answers = np.take_along_axis(values, which, axis=1)
        asked = Question(places, answers, places - 2 * which)
        return ids, asked, Question(first, values, np.ones_like(keys))

    def _places(self, rng: np.random.Generator, size: int) -> Ints:
        """Draw where the queries stand: ``[B, queries]``."""
        free = self.seq_len - self.first_place
        if self.gaps == "uniform":
            return self.first_place + distinct(rng, size, self.num_queries, free)
        weights = np.arange(1, free + 1, dtype=np.float64) ** (self.power - 1.0)
        return self.first_place + weighted(rng, size, self.num_queries, weights)
