"""Needle in a haystack: a marked key and its value, somewhere in noise, asked at the end.

Kamradt 2023's probe, in the synthetic form of RULER (Hsieh et al. 2024, arXiv 2404.06654). A mark
(``!``) says that a key and its value follow; behind the haystack the question mark and the key.
``depth=0.4``, eight tokens of haystack with the needle in it (``a``, ``b`` keys; ``x``, ``y``
values; ``m``, ``n`` hay)::

    ids     n m ! a y m m n ? a
    labels  . . . . . . . . . y

With ``hay="needles"`` the haystack is made of keys and values too (``x b ! a y y b a ? a``), and
the mark alone tells the needle: much harder to learn. Both forms read the same sequence. A group
is the depth of the needle that is asked, in percent: its first token stands at
``round(depth · (haystack - 3))``, so that 0 is the haystack's beginning and 100 its end.

Ids: 0 mark, 1 question mark, keys from 2, values behind them, and hay behind those if it is of its
own: equal shares, and what is left over is of the last kind.
What the splits do not share is a sequence.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from attention.checks import check_choice, check_float, check_int
from suites.tasks.base import Form, Ints, check_contents
from suites.tasks.drawing import DrawnTask, Question, distinct, integers, put
from suites.tasks.registry import register

Hay = Literal["own", "needles"]

MARK = 0
QUESTION = 1
FIRST_KEY = 2
NEEDLE = 3  # tokens

DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@register("needle")
class Needle(DrawnTask):
    """Marked pairs at chosen depths of a haystack, asked behind it.

    Args:
        seq_len: N, tokens: the haystack, the question mark and a key per needle.
        form: causal or bidirectional; the sequences are the same.
        depth: fractions of the haystack at which needles stand, a number or several; each sequence
            draws its own among them.
        num_needles: with different keys, at different depths; all are asked, in random order. With
            one the mark is enough, with more the key counts.
        hay: what the haystack is made of: tokens of its own, or those of the needles.
        vocab_size: ids: the two marks, keys, values and hay.

    Raises:
        ValueError: if a depth is not between 0 and 1, two share a percent or, with several
            needles, their tokens; or no haystack is left around the needles.
    """

    summary = "a marked key and value somewhere in noise, asked at the end"
    paper = "Hsieh et al. 2024, arXiv 2404.06654"
    group = "depth"
    default_seq_len = 256

    def __init__(
        self,
        *,
        seq_len: int,
        form: Form,
        depth: float | list[float] | tuple[float, ...] = DEPTHS,
        num_needles: int = 1,
        hay: Hay = "own",
        vocab_size: int = 64,
    ) -> None:
        super().__init__(seq_len=seq_len, form=form)
        self.depth = _check_depths(depth)
        self.num_needles = check_int("num_needles", num_needles, minimum=1)
        self.hay = check_choice("hay", hay, get_args(Hay))
        kinds = 3 if self.hay == "own" else 2
        self.vocab_size = check_int("vocab_size", vocab_size, minimum=FIRST_KEY + kinds)
        self.num_keys = (vocab_size - FIRST_KEY) // kinds
        self.first_value = FIRST_KEY + self.num_keys
        behind = self.first_value + self.num_keys
        self.num_values = (behind if self.hay == "own" else vocab_size) - self.first_value
        self.first_hay = behind if self.hay == "own" else FIRST_KEY
        if num_needles > min(len(self.depth), self.num_keys):
            raise ValueError(
                f"num_needles: expected at most {min(len(self.depth), self.num_keys)} (there are "
                f"{len(self.depth)} depths and {self.num_keys} keys), got {num_needles}"
            )
        self.haystack = seq_len - 1 - num_needles
        if self.haystack <= NEEDLE * num_needles:
            raise ValueError(
                f"seq_len: expected at least {(NEEDLE + 1) * num_needles + 2}, or no haystack is "
                f"left around {num_needles} needle{'s' * (num_needles > 1)}, got {seq_len}"
            )
        self._starts = np.array(
            [int(d * (self.haystack - NEEDLE) + 0.5) for d in self.depth], dtype=np.int64
        )
        if num_needles > 1 and (np.diff(np.sort(self._starts)) < NEEDLE).any():
            raise ValueError(
                f"depth: expected depths at least {NEEDLE} tokens apart, got "
                f"{', '.join(map(str, self.depth))} of a haystack of {self.haystack} tokens"
            )
        noise = (vocab_size - self.first_hay) ** min(self.haystack - NEEDLE * num_needles, 64)
        needles = (self.num_keys * self.num_values) ** num_needles
        check_contents("seq_len", seq_len, noise * needles)
        self.chance = 1.0 / self.num_values

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, ...]:
        """Draw ids, and of each needle, in the order asked, its depth's number and its value."""
        needles = self.num_needles
        which = distinct(rng, count, needles, len(self.depth))  # [B, needles]
        starts = self._starts[which]
        keys = FIRST_KEY + distinct(rng, count, needles, self.num_keys)
        values = self.first_value + integers(rng, self.num_values, count, needles)
        ids = self.first_hay + integers(rng, self.vocab_size - self.first_hay, count, self.seq_len)
        put(ids, starts, np.full_like(starts, MARK))
        put(ids, starts + 1, keys)
        put(ids, starts + 2, values)
        ids[:, self.haystack] = QUESTION
        ids[:, self.haystack + 1 :] = keys
        return ids, which, values

    def write(self, rng: np.random.Generator, *drawn: Ints) -> tuple[Ints, Question, None]:
        """Ask for the values behind the question mark, at the keys."""
        ids, which, values = drawn
        asking = np.broadcast_to(np.arange(self.haystack + 1, self.seq_len), which.shape)
        return ids, Question(asking, values, _percents(self.depth)[which]), None


def _percents(depths: tuple[float, ...]) -> Ints:
    return np.array([round(100 * d) for d in depths], dtype=np.int64)


def _check_depths(depth: float | list[float] | tuple[float, ...]) -> tuple[float, ...]:
    """Return depths as numbers from 0 to 1 in different percents."""
    several = tuple(depth) if isinstance(depth, list | tuple) else (depth,)
    checked = tuple(check_float("depth", d, minimum=0.0) for d in several)
    if not checked or max(checked) > 1.0:
        raise ValueError(
            "depth: expected one or more fractions from 0 to 1, got "
            f"{', '.join(map(str, several)) or 'none'}"
        )
    if len(set(_percents(checked).tolist())) < len(checked):
        raise ValueError(
            "depth: expected fractions that differ by a percent, got "
            f"{', '.join(map(str, checked))}"
        )
    return checked
