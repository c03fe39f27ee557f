"""Tasks that are drawn at random, and draws from a batch's random numbers.

A draw has a row a sequence, and no loop goes over the rows.

Everything is made of the generator's uniform numbers: their stream is one line of arithmetic on
Philox's words, while numpy's other methods may draw differently in another version.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suites.tasks.base import IGNORED, Batch, Ints, Split, Task, generator, of_split

Floats = npt.NDArray[np.float64]


class Question(NamedTuple):
    """Where sequences are asked something: K places in each of B sequences.

    Attributes:
        places: int64 ``[B, K]``, the tokens that ask.
        answers: int64 ``[B, K]``, their labels.
        groups: int64 ``[B, K]``, as in `Batch.groups`.
    """

    places: Ints
    answers: Ints
    groups: Ints


class DrawnTask(Task):
    """A task whose sequences are drawn at random, and ask for tokens that they hold.

    A subclass says what a sequence is about (`draw`) and writes it down (`write`).
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, ...]:
        """Draw what `count` sequences of either split are about; the first as of `of_split`."""

    @abstractmethod
    def write(
        self, rng: np.random.Generator, *drawn: Ints
    ) -> tuple[Ints, Question, Question | None]:
        """Return ids ``[B, N]``, what is asked, and a hint.

        A hint is asked too, in training and in the bidirectional form alone; ``None`` = there is
        none.
        """

    def batch(self, size: int, *, seed: int, index: int, split: Split) -> Batch:
        """Return a batch; see `Task.batch`."""
        rng = generator(seed, index, split)
        drawn = of_split(split, size, lambda count: self.draw(rng, count))
        ids, question, hint = self.write(rng, *drawn)
        labels, groups = unasked(*ids.shape), np.zeros_like(ids)
        takes_hints = self.form == "bidirectional" and split == "train"
        for asked in (question, hint if takes_hints else None):
            if asked is not None:
                put(labels, asked.places, asked.answers)
                put(groups, asked.places, asked.groups)
        return Batch.of(ids, labels, groups=groups)


def integers(rng: np.random.Generator, below: int | Ints, *shape: int) -> Ints:
    """Draw whole numbers from 0 to ``below - 1``, uniformly up to 2⁻⁵³."""
    drawn: Ints = (rng.random(shape) * below).astype(np.int64)
    return drawn


def distinct(rng: np.random.Generator, rows: int, count: int, below: int) -> Ints:
    """Draw `count` different numbers from 0 to ``below - 1`` in random order: ``[rows, count]``.

    Sorting all numbers costs O(below); where few of many are drawn, Floyd's algorithm does without
    (Bentley and Floyd 1987): the j-th draw is replaced by its own largest value if it was drawn
    before.
    """
    if below <= 8 * count:
        return np.argsort(rng.random((rows, below)), axis=1)[:, :count]
    tops = np.arange(below - count, below)
    drawn = integers(rng, tops + 1, rows, count)
    for j in range(1, count):
        is_taken = (drawn[:, :j] == drawn[:, j : j + 1]).any(axis=1)
        drawn[is_taken, j] = tops[j]
    return shuffled(rng, drawn)


def weighted(rng: np.random.Generator, rows: int, count: int, weights: Floats) -> Ints:
    """Draw `count` different places, one after the other by their weights: ``[rows, count]``.

    The order of exponential clocks with these rates (Efraimidis and Spirakis 2006).
    """
    clocks = -np.log1p(-rng.random((rows, len(weights)))) / weights
    return np.argsort(clocks, axis=1)[:, :count]


def shuffled(rng: np.random.Generator, values: Ints) -> Ints:
    """Return each row of `values` in a random order of its own."""
    order = np.argsort(rng.random(values.shape), axis=1)
    return np.take_along_axis(values, order, axis=1)


def put(into: Ints, places: Ints, values: Ints) -> None:
    """Write ``values[b, k]`` to ``into[b, places[b, k]]``."""
    np.put_along_axis(into, places, values, axis=1)


def unasked(rows: int, seq_len: int) -> Ints:
    """Return labels that ask nothing yet: ``[rows, seq_len]``."""
    return np.full((rows, seq_len), IGNORED, dtype=np.int64)
