"""Where more launches shorten the open intervals most for their time.

Greedy: the next launch goes to the case that takes most off the variances of the open questions,
each in units of its target, per second. Variances are taken as they are estimated; what more
launches would do to the intervals is foretold, and a question that is foretold to be answered
draws no more launches.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from results.statistics.intervals import LEVEL, Array
from results.statistics.questions import Question
from results.statistics.scatter import MOST_DF

FORETOLD_SHARE = 0.95
"""Of its target: a question is foretold to be answered at so narrow an interval. Estimates of
variances change with every launch, and a question that is just missed costs another batch."""

MOST_LAUNCHES = 1000
"""Of a case, in all."""

UNKNOWN_VARIANCE = 0.15**2
"""Of a launch's log, where no case was launched twice: what a shared machine usually has."""


FULL_LAUNCHES = 3
"""The first launches of a case, which do more than time it; the first does most."""

LEAST_S = 1e-3
"""Seconds that a launch counts as, at least."""

LEAST_VARIANCE = 1e-12
"""Launches that agree to the last place."""


class Allocation(NamedTuple):
    """Launches that are worth their time.

    Attributes:
        keys: of the cases, in the order they were chosen; one as often as it is launched.
        seconds: that they are foretold to take.
        is_enough: whether all questions are foretold to be answered then.
    """

    keys: tuple[Hashable, ...]
    seconds: float
    is_enough: bool


def seconds_of_next(walls: Iterable[tuple[int, float]]) -> float:
    """Return the seconds of a case's next launch: the first ones check and measure more.

    Args:
        walls: index and seconds of each of its launches, one at least.
    """
    every = list(walls)
    later = [wall for index, wall in every if index >= FULL_LAUNCHES]
    later = later or [wall for index, wall in every if index > 0]
    return max(LEAST_S, median(later or [wall for _, wall in every]))


def allocate(
    questions: Sequence[Question],
    costs: Mapping[Hashable, float],
    *,
    batch_s: float = math.inf,
    within_s: float = math.inf,
) -> Allocation:
    """Choose the next launches, one after the other.

    Args:
        questions: answered and open ones.
        costs: seconds of one more launch, of each case that may be launched again.
        batch_s: no launch is added once they take so long.
        within_s: no launch is added that is foretold to end later.

    Returns:
        The launches; none where nothing is open, or no launch that is allowed would help.
    """
    asked = [question for question in questions if question.is_open]
    if not asked:
        return Allocation((), 0.0, True)
    state = _State.of(asked, costs)
    chosen: list[Hashable] = []
    spent = 0.0
    while spent < batch_s:
        is_open = state.foretold_half_widths() > FORETOLD_SHARE * state.targets
        if not is_open.any():
            return Allocation(tuple(chosen), spent, True)
        fits = state.seconds <= within_s - spent
        gains = np.where(fits, state.gains(is_open), 0.0)
        if not gains.max(initial=0.0) > 0:
            break
        best = int(gains.argmax())
        chosen.append(state.keys[best])
        spent += float(state.seconds[best])
        state.add(best)
    return Allocation(tuple(chosen), spent, False)


@dataclass(eq=False)
class _State:
    """Open questions as arrays: Q of them, K cases, P parts (a series in a question), T terms.

    Attributes:
        keys: of the cases, [K].
        seconds: of one more launch, infinite where there is to be none, [K].
        counts: launches of each case, [K].
        targets: of each question, [Q].
        of_term: case, part and squared weight times variance of each term, [T] each.
        of_part: question, what the sentinel's coefficient adds, degrees of freedom and series of
            each part, [P] each.
        series: of each case, [K].
        added: launches that a series was given, [S].
    """

    keys: list[Hashable]
    seconds: Array
    counts: Array
    targets: Array
    of_term: tuple[np.ndarray, np.ndarray, Array]
    of_part: tuple[np.ndarray, Array, Array, np.ndarray]
    series: np.ndarray
    added: Array

    @classmethod
    def of(cls, questions: Sequence[Question], costs: Mapping[Hashable, float]) -> _State:
        """Gather what questions have in common."""
        known = [
            term.cell.series.variance
            for question in questions
            for term in question.terms
            if term.cell.series.df
        ]
        usual = float(np.median(known)) if known else UNKNOWN_VARIANCE
        cases: dict[Hashable, int] = {}
        counts: list[int] = []
        series: dict[int, int] = {}
        series_of_case: list[int] = []
        terms: list[tuple[int, int, float]] = []
        parts: list[tuple[int, float, float, int]] = []
        for number, question in enumerate(questions):
            part_of: dict[int, int] = {}
            shifts: dict[int, float] = {}
            for term in question.terms:
                model = term.cell.series
                group = series.setdefault(id(model), len(series))
                if term.key not in cases:
                    cases[term.key] = len(cases)
                    counts.append(term.cell.num_launches)
                    series_of_case.append(group)
                if group not in part_of:
                    part_of[group] = len(parts)
                    parts.append((number, 0.0, float(model.df), group))
                variance = max(model.variance if model.df else usual, LEAST_VARIANCE)
                part = part_of[group]
                terms.append((cases[term.key], part, term.weight**2 * variance))
                if model.uses_sentinel:
                    shifts[part] = shifts.get(part, 0.0) + term.weight * term.cell.offset
                    added = variance * shifts[part] ** 2 / model.sentinel_squares
                    parts[part] = (number, added, float(model.df), group)
        of_term = [np.asarray(column) for column in zip(*terms, strict=True)]
        of_part = [np.asarray(column) for column in zip(*parts, strict=True)]
        return cls(
            list(cases),
            np.asarray([costs.get(key, math.inf) for key in cases], dtype=np.float64),
            np.asarray(counts, dtype=np.float64),
            np.asarray([question.target for question in questions], dtype=np.float64),
            (of_term[0], of_term[1], of_term[2]),
            (of_part[0], of_part[1], of_part[2], of_part[3]),
            np.asarray(series_of_case),
            np.zeros(len(series)),
        )  # fmt: skip

    def foretold_half_widths(self) -> Array:
        """Return the half-widths that the launches so far are foretold to give, shape [Q]."""
        case, part, squares = self.of_term
        question, shift, df, series = self.of_part
        more = df + self.added[series]
        # With more launches the sentinel's coefficient is known better, too.
        share = np.where(df > 0, df / np.maximum(more, 1.0), 1.0)
        variances = np.bincount(part, squares / self.counts[case], len(df)) + shift * share
        whole = np.bincount(question, variances, len(self.targets))
        known = np.maximum(more, 0.5)
        joint = whole**2 / np.bincount(question, variances**2 / known, len(self.targets))
        joint = np.clip(np.floor(joint), 1.0, MOST_DF)
        half: Array = stdtrit(joint, (1 + LEVEL) / 2) * np.sqrt(whole)
        unknown = np.bincount(question, more < 1, len(self.targets)) > 0
        half[unknown] = math.inf
        return half

    def gains(self, is_open: np.ndarray) -> Array:
        """Return what one more launch of each case takes off open variances, a second, [K]."""
        case, part, squares = self.of_term
        question = self.of_part[0][part]
        wanted = np.where(is_open, 1.0 / self.targets**2, 0.0)[question]
        less = 1.0 / (self.counts * (self.counts + 1.0))
        gains: Array = np.bincount(case, squares * wanted, len(self.keys)) * less / self.seconds
        return gains

    def add(self, index: int) -> None:
        """Take one more launch of a case as given."""
        self.counts[index] += 1
        self.added[self.series[index]] += 1
        if self.counts[index] >= MOST_LAUNCHES:
            self.seconds[index] = math.inf
