"""What the tests of tasks share: drawing many sequences, counting them, chi-square bounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from suites.tasks.base import IGNORED, Batch, Form, Split, Task, generator

Array = npt.NDArray[np.int64]


def many(task: Task, rows: int, *, seed: int = 0, split: Split = "train") -> Batch:
    """Return one large batch."""
    return task.batch(rows, seed=seed, index=0, split=split)


class UniformAlone:
    """Random numbers that have uniform draws and no others."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.random = rng.random


def uniform_alone(seed: int, index: int, split: str) -> UniformAlone:
    """Stand in for `suites.tasks.base.generator`."""
    return UniformAlone(generator(seed, index, split))


def asked(batch: Batch) -> Iterator[tuple[list[int], int, int]]:
    """Walk the questions: the sequence, the place of the question and the label."""
    ids, labels = batch.ids.numpy(), batch.labels.numpy()
    for row, place in zip(*np.nonzero(labels != IGNORED), strict=True):
        yield ids[row].tolist(), int(place), int(labels[row, place])


def assert_drawn_from(counts: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    """Hold counts against what is expected of them: chi-square within five deviations."""
    seen, hoped = np.asarray(counts, dtype=float), np.asarray(expected, dtype=float)
    hoped = hoped * seen.sum() / hoped.sum()
    assert seen.shape == hoped.shape
    assert not seen[hoped == 0].any()
    seen, hoped = seen[hoped > 0], hoped[hoped > 0]
    assert hoped.min() >= 5, "too few drawn for a bound"
    freedom = len(seen) - 1
    distance = float(((seen - hoped) ** 2 / hoped).sum())
    assert distance < freedom + 5 * (2 * freedom) ** 0.5 + 10, (distance, freedom)


def assert_alike(first: npt.ArrayLike, second: npt.ArrayLike) -> None:
    """Hold two samples' counts against each other; rare outcomes are taken together."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    is_rare = a + b < 20
    a, b = (np.append(x[~is_rare], x[is_rare].sum()) for x in (a, b))
    a, b = a[a + b > 0], b[a + b > 0]
    total = a + b
    hoped = [total * x.sum() / total.sum() for x in (a, b)]
    distance = float(sum(((x - h) ** 2 / h).sum() for x, h in zip((a, b), hoped, strict=True)))
    freedom = len(a) - 1
    assert freedom > 0
    assert distance < freedom + 5 * (2 * freedom) ** 0.5 + 10, (distance, freedom)


def assert_uniform(values: npt.ArrayLike, low: int, high: int) -> None:
    """Hold values against the uniform distribution on ``low … high - 1``."""
    array = np.asarray(values).ravel()
    assert low <= array.min()
    assert array.max() < high
    assert_drawn_from(np.bincount(array - low, minlength=high - low), np.ones(high - low))


FORMS: tuple[Form, ...] = ("causal", "bidirectional")
