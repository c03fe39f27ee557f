"""Induction: what followed this token when it came before?

Olsson et al. 2022, arXiv 2209.11895; as a task with a trigger token, Fu et al. 2022,
arXiv 2212.14052, section 3.1. Letters at random; among them each trigger comes once, followed by a
letter, and once more later, where that letter is asked. Two triggers (``S``, ``T``)::

    ids     b T a c S b T _ d a S _ c
    labels  . . . . . . a . . . b . .

Behind a trigger's second place stands a blank, so that no other letter follows it in either form;
both forms read the same sequence. In training, and in the bidirectional form alone, it is asked at
the first place too, where it is the next token (group 1); `recall` says why. A group is the
distance between a trigger's two places, in tokens. All arrangements that keep each trigger
together with the token behind it are alike in probability.

Ids: 0 blank, triggers from 1, letters behind them.
What the splits do not share is a sequence.
"""

from __future__ import annotations

import math

import numpy as np

from attention.checks import check_int
from suites.tasks.base import Form, Ints, check_contents
from suites.tasks.drawing import DrawnTask, Question, distinct, integers, put, shuffled
from suites.tasks.registry import register

BLANK = 0
FIRST_TRIGGER = 1


@register("induction")
class Induction(DrawnTask):
    """Triggers that come twice; at the second place what followed the first is asked.

    Args:
        seq_len: N, tokens.
        form: causal or bidirectional; the sequences are the same.
        num_triggers: tokens that come twice; every sequence has all of them.
        num_letters: that everything else is drawn from.

    Raises:
        ValueError: if the triggers do not fit into the sequence.
    """

    summary = "what followed this token when it came before?"
    paper = "Olsson et al. 2022, arXiv 2209.11895"
    group = "distance"

    def __init__(
        self, *, seq_len: int, form: Form, num_triggers: int = 4, num_letters: int = 16
    ) -> None:
        super().__init__(seq_len=seq_len, form=form)
        self.num_triggers = check_int("num_triggers", num_triggers, minimum=1)
        self.num_letters = check_int("num_letters", num_letters, minimum=2)
        if 4 * num_triggers > seq_len:
            raise ValueError(
                f"num_triggers: {num_triggers} triggers, twice each and with a token behind, take "
                f"{4 * num_triggers} tokens; expected at most seq_len={seq_len}"
            )
        self.first_letter = FIRST_TRIGGER + num_triggers
        self.vocab_size = self.first_letter + num_letters
        # Of a sequence with its letters given; the last exponent are the tokens that hold one.
        arrangements = math.comb(seq_len - 2 * num_triggers, 2 * num_triggers)
        letters = num_letters ** min(seq_len - 3 * num_triggers, 64)
        check_contents("num_letters", num_letters, arrangements * letters)
        self.chance = 1.0 / num_letters

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, ...]:
        """Draw ids, and where each trigger stands first and again: ``[B, triggers]``."""
        triggers = self.num_triggers
        # 2·triggers pairs of tokens among single ones: as many places as things to order.
        starts = np.sort(distinct(rng, count, 2 * triggers, self.seq_len - 2 * triggers), axis=1)
        starts += np.arange(2 * triggers)  # each pair before moves the next by one more token
        owners = shuffled(rng, np.broadcast_to(np.arange(2 * triggers) // 2, starts.shape))
        order = np.argsort(owners, axis=1, kind="stable")  # a trigger's two places, side by side
        starts = np.take_along_axis(starts, order, axis=1)
        first, second = starts[:, 0::2], starts[:, 1::2]  # [B, triggers]
        ids = self.first_letter + integers(rng, self.num_letters, count, self.seq_len)
        trigger_ids = np.broadcast_to(np.arange(triggers) + FIRST_TRIGGER, first.shape)
        put(ids, first, trigger_ids)
        put(ids, second, trigger_ids)
        put(ids, second + 1, np.full_like(second, BLANK))
        return ids, first, second

    def write(self, rng: np.random.Generator, *drawn: Ints) -> tuple[Ints, Question, Question]:
        """Ask at the second places what followed the first; the hint asks it there too."""
        ids, first, second = drawn
        followers = np.take_along_axis(ids, first + 1, axis=1)
        asked = Question(second, followers, second - first)
        return ids, asked, Question(first, followers, np.ones_like(first))
