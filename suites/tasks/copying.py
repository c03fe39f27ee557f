"""Copying: write the symbols again behind a separator, from their places or from among blanks.

`copy`: the symbols stand in front, blanks follow up to the separator. `selective_copy` (Gu and Dao
2023, arXiv 2312.00752, section 3.1): they are scattered among the blanks. Seven tokens before the
separator (``|``), three symbols (``_`` blank)::

    copy            ids     a c b _ _ _ _ | a c
                    labels  . . . . . . . a c b
    selective_copy  ids     _ a _ _ c b _ | a c
                    labels  . . . . . . . a c b

The causal form is taught by forcing: behind the separator stand the symbols, and each place asks
the next one. In the bidirectional form they would give the answers away, so masks (``?``) stand
there: ``a c b _ _ _ _ | ? ?`` with the same labels. A group is the distance from where a symbol is
asked to its place in front, in tokens: one and the same for all of `copy`, longer with every token
that ``seq_len`` has more; spread in `selective_copy`.

Ids: 0 blank, 1 separator, 2 mask, letters from 3.
What the splits do not share is a row of symbols, wherever they stand.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from attention.checks import check_int
from suites.tasks.base import Form, Ints, check_contents
from suites.tasks.drawing import DrawnTask, Question, distinct, integers, put
from suites.tasks.registry import register

BLANK = 0
SEPARATOR = 1
MASK = 2
FIRST_LETTER = 3


class Copying(DrawnTask):
    """What copying from places and from among blanks have in common.

    Args:
        seq_len: N, tokens.
        form: causal or bidirectional.
        num_symbols: to be copied; ``None`` = the default share of the sequence.
        num_letters: that a symbol is drawn from.

    Raises:
        ValueError: if symbols, separator and answers do not fit into the sequence.
    """

    group = "distance"
    default_share: ClassVar[int]  # of `seq_len`: one symbol in so many tokens

    def __init__(
        self, *, seq_len: int, form: Form, num_symbols: int | None = None, num_letters: int = 16
    ) -> None:
        super().__init__(seq_len=seq_len, form=form)
        symbols = max(1, seq_len // self.default_share) if num_symbols is None else num_symbols
        self.num_symbols = check_int("num_symbols", symbols, minimum=1)
        self.num_letters = check_int("num_letters", num_letters, minimum=2)
        if 2 * self.num_symbols > seq_len:
            raise ValueError(
                f"num_symbols: {self.num_symbols} symbols and their answers take "
                f"{2 * self.num_symbols} tokens; expected at most seq_len={seq_len}"
            )
        check_contents("num_symbols", self.num_symbols, num_letters**self.num_symbols)
        self.separator = seq_len - self.num_symbols  # its place; the first symbol is asked there
        self.vocab_size = FIRST_LETTER + num_letters
        self.chance = 1.0 / num_letters

    @abstractmethod
    def _places(self, rng: np.random.Generator, size: int) -> Ints:
        """Draw where the symbols stand in front: ``[B, symbols]``, rising."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, ...]:
        """Draw the symbols ``[B, symbols]``."""
        return (FIRST_LETTER + integers(rng, self.num_letters, count, self.num_symbols),)

    def write(self, rng: np.random.Generator, *drawn: Ints) -> tuple[Ints, Question, None]:
        """Put the symbols to their places; they are asked from the separator on."""
        (symbols,) = drawn
        places = self._places(rng, len(symbols))
        ids = np.full((len(symbols), self.seq_len), BLANK, dtype=np.int64)
        put(ids, places, symbols)
        ids[:, self.separator] = SEPARATOR
        ids[:, self.separator + 1 :] = symbols[:, :-1] if self.form == "causal" else MASK
        asking = np.broadcast_to(np.arange(self.separator, self.seq_len), places.shape)
        return ids, Question(asking, symbols, asking - places), None


@register("copy")
class Copy(Copying):
    """Symbols in front, to be written again; ``num_symbols`` defaults to half the sequence."""

    summary = "write a row of symbols again"
    paper = "Graves et al. 2014, arXiv 1410.5401"
    default_share = 2

    def _places(self, rng: np.random.Generator, size: int) -> Ints:
        return np.broadcast_to(np.arange(self.num_symbols), (size, self.num_symbols))


@register("selective_copy")
class SelectiveCopy(Copying):
    """Symbols scattered among blanks; ``num_symbols`` defaults to a quarter of the sequence."""

    summary = "write the symbols among blanks again, in their order"
    paper = "Gu and Dao 2023, arXiv 2312.00752"
    default_share = 4

    def _places(self, rng: np.random.Generator, size: int) -> Ints:
        return np.sort(distinct(rng, size, self.num_symbols, self.separator), axis=1)
