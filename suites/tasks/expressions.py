"""Random ListOps expressions: their grammar, their lengths' probabilities, and their layout.

The grammar of Long Range Arena's generator (Tay et al. 2020, arXiv 2011.04006, section 2.2.1;
after Nangia and Bowman 2018, arXiv 1804.06028), depths counted from 1 at the root::

    node(d)  = digit                              with probability 3/4, and always at max_depth
             | operator node(d + 1) … node(d + 1) ]          with probability 1/4
    digit    0 … 9, operator MAX MIN MED SM, number of arguments 2 … max_args: uniform

MED is the median, the mean of the middle two rounded down; SM the sum modulo 10. A bracket opens
with its operator: ``[MAX`` is one token, ``]`` another. A whole expression is drawn again until
its length in tokens is within bounds; a root that is a digit never is.

All trees of a batch grow at once, a level after the other: a level holds its operators in order,
each with its number of arguments, and all their arguments side by side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from suites.tasks.base import Ints
from suites.tasks.drawing import integers

Bools = npt.NDArray[np.bool_]

OPERATORS = ("MAX", "MIN", "MED", "SM")
NESTING = 0.25
"""Probability that a node is an operator, above the last depth."""
SHORTEST = 4
"""Tokens of an operator with two digits."""


@dataclass(frozen=True)
class Level:
    """The operators of one depth, tree after tree, and their arguments.

    Attributes:
        tree: ``[O]``, which tree an operator is of, rising.
        count: ``[O]``, its number of arguments.
        nested: ``[A]``, of each argument: whether it is an operator of the next level.
    """

    tree: Ints
    count: Ints
    nested: Bools

    @property
    def first(self) -> Ints:
        """Where each operator's arguments begin: ``[O]``."""
        return np.cumsum(self.count) - self.count

    def of_trees(self, kept: Bools, number: Ints) -> Level:
        """Return the level of the trees that are kept, numbered anew."""
        mine = kept[self.tree]
        nested = self.nested[np.repeat(mine, self.count)]
        return Level(number[self.tree[mine]], self.count[mine], nested)


def grow(
    rng: np.random.Generator, trees: int, *, max_depth: int, max_args: int, max_len: int
) -> tuple[list[Level], Ints]:
    """Grow trees whose roots are operators; one that is already too long grows no further.

    Returns:
        the levels, and each tree's length in tokens (of one that is too long, some such length).
    """
    levels = []
    lengths = np.zeros(trees, dtype=np.int64)
    tree = np.arange(trees)
    for depth in range(1, max_depth):
        count = 2 + integers(rng, max_args - 1, len(tree))
        owner = np.repeat(tree, count)
        nested = rng.random(len(owner)) < (NESTING if depth + 1 < max_depth else 0.0)
        levels.append(Level(tree, count, nested))
        lengths += 2 * np.bincount(tree, minlength=trees)  # operator and bracket
        lengths += np.bincount(owner[~nested], minlength=trees)
        waiting = SHORTEST * np.bincount(owner[nested], minlength=trees)
        too_long = lengths + waiting > max_len
        lengths[too_long] = np.maximum(lengths, max_len + 1)[too_long]
        keep_on = ~too_long[owner] & nested
        if too_long.any():  # theirs are not expanded: nobody looks at them again
            levels[-1] = Level(tree, count, nested & ~too_long[owner])
        tree = owner[keep_on]
        if not len(tree):
            break
    return levels, lengths


def select(levels: list[Level], kept: Bools) -> list[Level]:
    """Return the levels of the trees that are kept, numbered anew."""
    number = np.cumsum(kept) - 1
    chosen = [level.of_trees(kept, number) for level in levels]
    return [level for level in chosen if len(level.tree)]


@dataclass(frozen=True)
class Expressions:
    """Trees with their operators and digits drawn.

    Attributes:
        levels: their shape.
        operators: of each level ``[O]``, a number in `OPERATORS`.
        digits: of each level ``[A]``: the digit, or what stands in an operator's place is unread.
    """

    levels: list[Level]
    operators: list[Ints]
    digits: list[Ints]

    @classmethod
    def draw(cls, rng: np.random.Generator, levels: list[Level]) -> Expressions:
        """Draw operators and digits for trees of these shapes."""
        operators = [integers(rng, len(OPERATORS), len(level.tree)) for level in levels]
        digits = [integers(rng, 10, len(level.nested)) for level in levels]
        return cls(levels, operators, digits)

    def values(self) -> Ints:
        """Evaluate every tree, from the last level up: ``[B]``."""
        below = np.empty(0, dtype=np.int64)
        for level, operators, digits in zip(
            reversed(self.levels), reversed(self.operators), reversed(self.digits), strict=True
        ):
            arguments = digits.copy()
            arguments[level.nested] = below
            below = _apply(operators, arguments, level)
        return below

    def write(self, into: Ints, *, digit: int, operator: int, bracket: int) -> None:
        """Write every tree's tokens to its row of `into` ``[B, N]``.

        Args:
            into: long enough for each.
            digit: id of 0; the others follow.
            operator: id of the first of `OPERATORS`; the others follow.
            bracket: id of the closing one.
        """
        sizes = self._sizes()
        start = np.zeros(len(into), dtype=np.int64)
        for level, operators, digits, size in zip(
            self.levels, self.operators, self.digits, sizes, strict=True
        ):
            into[level.tree, start] = operator + operators
            before = np.cumsum(size) - size  # tokens of all arguments before, of any operator
            places = np.repeat(start + 1 - before[level.first], level.count) + before
            into[level.tree, start + 1 + np.add.reduceat(size, level.first)] = bracket
            plain = ~level.nested
            into[np.repeat(level.tree, level.count)[plain], places[plain]] = digit + digits[plain]
            start = places[level.nested]

    def _sizes(self) -> list[Ints]:
        """Return every argument's tokens: of each level ``[A]``."""
        sizes: list[Ints] = []
        below = np.empty(0, dtype=np.int64)
        for level in reversed(self.levels):
            size = np.ones(len(level.nested), dtype=np.int64)
            size[level.nested] = below
            below = 2 + np.add.reduceat(size, level.first)
            sizes.append(size)
        return sizes[::-1]


def _apply(operators: Ints, arguments: Ints, level: Level) -> Ints:
    """Apply each operator of a level to its arguments: ``[O]``."""
    first, count = level.first, level.count
    # Sorted within each operator: the owner's number leads, and the digits follow.
    ordered = np.sort(np.repeat(np.arange(len(count)) * 10, count) + arguments) % 10
    median = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) // 2
    results = np.stack(
        [
            ordered[first + count - 1],
            ordered[first],
            median,
            np.add.reduceat(arguments, first) % 10,
        ]
    )  # in the order of OPERATORS
    chosen: Ints = np.take_along_axis(results, operators[None], axis=0)[0]
    return chosen


@functools.lru_cache(maxsize=16)
def length_probabilities(
    *, max_depth: int, max_args: int, max_len: int
) -> npt.NDArray[np.float64]:
    """Return the probability of each length ``0 … max_len`` of a tree whose root is an operator.

    By the grammar: the lengths of arguments are independent, so their sum's probabilities are a
    convolution; what is longer than `max_len` is cut off, and the sum is below 1 by as much.
    """
    node = np.zeros(max_len + 1)
    node[1] = 1.0  # at the last depth: a digit
    root = node
    for _ in range(max_depth - 1):
        power, total = node, np.zeros(max_len + 1)
        for _ in range(2, max_args + 1):
            power = np.convolve(power, node)[: max_len + 1]
            total += power
        root = np.zeros(max_len + 1)
        root[2:] = total[:-2] / (max_args - 1)
        node = NESTING * root
        node[1] += 1.0 - NESTING
    return root
