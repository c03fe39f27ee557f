"""The questions that a run of suite speed is to answer, and how exactly.

Of each series its exponent; in each setting and mode the fastest two at the longest length that
they share; of each series that is not exact, where it becomes faster than each exact baseline, if
that lies within the lengths. Each is a contrast of cases (`results.statistics.launches`) with a
target for the half-width of its interval: a question is open while it is wider. That a difference
is significant, or is not, never closes a question: a sweep that stopped on that would call equal
backends apart too often.

A sweep's planner and the report both read this. numpy and scipy alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from results.statistics.crossover import interpolation, last_sign_change
from results.statistics.inference import Difference
from results.statistics.launches import Cell, contrast, slope_weights

BASELINES = ("full", "sdpa")
"""The exact backends that the others are held against."""

PRECISION = 0.10
"""At which the targets are those that `Targets` says."""

LEAST_SLOPE = 0.3
"""A difference that changes less with the log of length has no sharp crossover: the target is not
made stricter for it."""

CLEAR_LEAD = 3.0
"""A lead of so many times its half-width needs no more launches."""

Kind = Literal["exponent", "fastest", "crossover"]


@dataclass(frozen=True)
class Targets:
    """Half-widths of 95 % intervals at which questions are answered, of logarithms.

    Attributes:
        exponent: of the slope of log time over log length.
        fastest: of the log of the ratio of the fastest two; a third of that log where it is more
            (half would close too often on leads that are overestimated by chance).
        crossover: of the log of a crossover's length.
    """

    exponent: float = 0.10
    fastest: float = 0.085
    crossover: float = 0.14

    @classmethod
    def at(cls, precision: float) -> Targets:
        """Return the targets of a precision: 0.10 = those above, others in proportion.

        Raises:
            ValueError: if it is not above 0 and finite.
        """
        if not 0 < precision < math.inf:
            raise ValueError(f"precision: expected a number above 0, got {precision}")
        share = precision / PRECISION
        return cls(cls.exponent * share, cls.fastest * share, cls.crossover * share)


class Point(NamedTuple):
    """A case of a series: what its launches are known by, and what the model says of them."""

    key: Hashable
    cell: Cell


@dataclass(frozen=True, eq=False)
class Curve:
    """A series as questions are asked of it.

    Attributes:
        name: of the series, for people.
        setting: equal for series that are compared: all but the backend, in one mode.
        place: the mode, and what else tells settings apart, for people.
        baseline: which exact baseline it is of; "" = of none.
        points: length in tokens to the case there; those that were measured.
    """

    name: str
    setting: Hashable
    place: str
    baseline: str
    points: Mapping[int, Point]


class Term(NamedTuple):
    """A case's part in a question: the weight of its log."""

    key: Hashable
    weight: float
    cell: Cell


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, how exactly it is known and how exactly it is to be known.

    Attributes:
        kind: of the question.
        words: what is asked, for people: a noun phrase.
        terms: the cases whose launches answer it.
        difference: what is known of it: the contrast of `terms`.
        target: half-width of its interval at which it is answered.
        per_unit: how much of the contrast is one of what is asked: of a crossover, the slope of
            the difference over log length; else 1.
    """

    kind: Kind
    words: str
    terms: tuple[Term, ...]
    difference: Difference
    target: float
    per_unit: float = 1.0

    @property
    def weights(self) -> dict[Hashable, float]:
        """Case key to the weight of its log."""
        return {term.key: term.weight for term in self.terms}

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; infinite where there is none."""
        return self.difference.half_width

    @property
    def known(self) -> str:
        """How exactly it is known: ``±0.13``, of a ratio or a length ``±12 %``."""
        return self._shown(self.half_width)

    @property
    def wanted(self) -> str:
        """How exactly it is to be known, likewise."""
        return self._shown(self.target)

    def _shown(self, half: float) -> str:
        if not math.isfinite(half):
            return "no interval"
        if self.kind == "exponent":
            return f"±{half:.2f}"
        factor = math.exp(min(9.0, half / self.per_unit))
        if factor >= 2:
            return f"a factor of {factor:.2g}"
        # Of a ratio the mean of both sides, of a length the longer one.
        share = (factor - 1 / factor) / 2 if self.kind == "fastest" else factor - 1
        return f"±{100 * share:.2g} %"

    @property
    def is_open(self) -> bool:
        """Whether the interval is wider than the target, or is not there."""
        return not self.half_width <= self.target


def questions_of(curves: Iterable[Curve], targets: Targets) -> list[Question]:
    """Return the questions that series ask, exponents first.

    Args:
        curves: what was measured; one without a second length has no exponent.
        targets: how exactly they are to be answered.
    """
    by_setting: dict[Hashable, list[Curve]] = defaultdict(list)
    for curve in curves:
        by_setting[curve.setting].append(curve)
    result: list[Question] = []
    for part in by_setting.values():
        result += [_exponent(curve, targets) for curve in part if len(curve.points) > 1]
    for part in by_setting.values():
        result += [*_fastest_two(part, targets), *_crossovers(part, targets)]
    return result


def _question(
    kind: Kind, words: str, terms: Sequence[Term], target: float, per_unit: float = 1.0
) -> Question:
    known = contrast([(term.weight, term.cell) for term in terms])
    return Question(kind, words, tuple(terms), known, target, per_unit)


def _exponent(curve: Curve, targets: Targets) -> Question:
    lengths = sorted(curve.points)
    points = [curve.points[n] for n in lengths]
    weights = slope_weights(lengths).tolist()
    terms = [Term(p.key, weight, p.cell) for p, weight in zip(points, weights, strict=True)]
    return _question(
        "exponent", f"the exponent of {curve.name}, {curve.place}", terms, targets.exponent
    )


def _fastest_two(curves: Sequence[Curve], targets: Targets) -> list[Question]:
    """Return the question which of two is the fastest at the longest length that two share."""
    at: dict[int, list[tuple[Curve, Point]]] = defaultdict(list)
    for curve in curves:
        for length, point in curve.points.items():
            at[length].append((curve, point))
    shared = [length for length, there in at.items() if len(there) > 1]
    if not shared:
        return []
    longest = max(shared)
    (first, best), (second, next_best) = sorted(
        at[longest], key=lambda one: one[1].cell.log_value
    )[:2]
    terms = [Term(next_best.key, 1.0, next_best.cell), Term(best.key, -1.0, best.cell)]
    lead = next_best.cell.log_value - best.cell.log_value
    words = f"the fastest two at {longest:,} tokens, {first.place}: {first.name} and {second.name}"
    return [_question("fastest", words, terms, max(targets.fastest, lead / CLEAR_LEAD))]


def _crossovers(curves: Sequence[Curve], targets: Targets) -> list[Question]:
    """Return where each series that is not exact overtakes each of the exact baselines."""
    baselines: dict[str, dict[int, Point]] = defaultdict(dict)
    for curve in curves:
        for length, point in curve.points.items() if curve.baseline else ():
            best = baselines[curve.baseline].get(length)
            if best is None or point.cell.log_value < best.cell.log_value:
                baselines[curve.baseline][length] = point
    found = (
        _crossover(curve, name, theirs, targets)
        for curve in curves
        if not curve.baseline
        for name, theirs in baselines.items()
    )
    return [question for question in found if question is not None]


def _crossover(
    curve: Curve, baseline: str, theirs: Mapping[int, Point], targets: Targets
) -> Question | None:
    lengths = sorted(curve.points.keys() & theirs.keys())
    if len(lengths) < 2:
        return None
    leads = [theirs[n].cell.log_value - curve.points[n].cell.log_value for n in lengths]
    at = last_sign_change(lengths, leads)
    if not lengths[0] < at < math.inf:  # faster everywhere, or not at the longest
        return None
    right = next(i for i, n in enumerate(lengths) if n >= at)
    left = right - 1
    weights = interpolation(lengths, [at])[0].tolist()
    terms = [
        Term(points[n].key, sign * weight, points[n].cell)
        for sign, points in ((1.0, theirs), (-1.0, curve.points))
        for n, weight in zip(lengths, weights, strict=True)
        if weight
    ]
    rise = (leads[right] - leads[left]) / math.log(lengths[right] / lengths[left])
    per_unit = max(LEAST_SLOPE, abs(rise))
    words = f"where {curve.name} becomes faster than {baseline}, {curve.place}"
    return _question("crossover", words, terms, targets.crossover * per_unit, per_unit)
