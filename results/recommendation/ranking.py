"""Which attention to use at a length, from measured records: never a guess.

A candidate is a backend with its options. One ranking holds the candidates of one setting
(`case_columns.SETTING`: machine, environment, shape, threads, precision …), by latency; numbers
of two settings never stand in one. What the records do not say does not qualify, and is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from results.recommendation.interpolation import Reading
from results.recommendation.question import Question
from results.recommendation.snippet import python_lines
from results.statistics.intervals import Estimate
from results.statistics.launches import contrast, estimate_of
from results.text.labels import label

UNKNOWN = Estimate(math.nan, math.nan, math.nan)

SAME_RATIO = 1.0
"""Two latencies whose ratio's interval holds this are not told apart."""


@dataclass(frozen=True)
class Candidate:
    """A backend with its options, and what is known of it at the length.

    Attributes:
        backend: its name.
        options: as the command line writes them; "" = its defaults.
        latency: s, over launches.
        memory: B: peak above the inputs, in mode decode the state.
        error: relative L2 distance from exact softmax attention.
        recall: accuracy of a recall task, over seeds.
        reasons: why it does not qualify: ``latency`` or a limit's name, to one sentence; empty =
            it does.
        errors: its error on further inputs, those of kind error, by their name.
        times: its latency / that of the first of its ranking, with the interval.
    """

    backend: str
    options: str
    latency: Reading
    memory: Reading
    error: Reading
    recall: Reading
    reasons: Mapping[str, str]
    errors: Mapping[str, Reading] = field(default_factory=dict)
    times: Estimate = UNKNOWN

    @property
    def label(self) -> str:
        """The candidate as the command line writes it."""
        return label(self.backend, self.options)

    @property
    def qualifies(self) -> bool:
        """Whether it was measured at the length and meets every limit."""
        return not self.reasons

    @property
    def is_cut_short(self) -> bool:
        """Whether the warm-up behind its latency was: it may be faster than said."""
        return self.latency.converged is False

    @property
    def told_apart(self) -> bool:
        """Whether its latency is surely another than that of the first."""
        holds = self.times.has_interval and self.times.low <= SAME_RATIO <= self.times.high
        return self.times.has_interval and not holds


@dataclass(frozen=True)
class Ranking:
    """The candidates of one setting.

    Attributes:
        setting: values of `case_columns.SETTING`.
        qualified: by latency, the fastest first.
        rejected: what did not qualify; what has a latency first.
        question: what was asked.
        lengths: the lengths at which a time was measured in this setting, in tokens.
    """

    setting: Mapping[str, Any]
    qualified: tuple[Candidate, ...]
    rejected: tuple[Candidate, ...]
    question: Question
    lengths: tuple[int, ...]

    @property
    def winner(self) -> Candidate | None:
        """The fastest that qualifies."""
        return self.qualified[0] if self.qualified else None

    @property
    def not_told_apart(self) -> tuple[Candidate, ...]:
        """Those that qualify and may be as fast as the winner."""
        return tuple(c for c in self.qualified[1:] if not c.told_apart)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All, those that qualify first."""
        return (*self.qualified, *self.rejected)

    @property
    def python(self) -> str:
        """Lines of Python that use the winner; "" without one."""
        if self.winner is None:
            return ""
        return python_lines(
            self.winner.backend, self.winner.options, setting=self.setting,
            mode=self.question.mode, seq_len=self.question.seq_len,
        )  # fmt: skip

    @property
    def never_measured(self) -> tuple[str, ...]:
        """What no candidate has a value of: ``latency``, ``memory``, ``error``, ``recall``."""
        names = ("latency", "memory", "error", "recall")
        return tuple(n for n in names if not any(getattr(c, n).known for c in self.candidates))


@dataclass(frozen=True)
class Recommendation:
    """The answer to a question.

    Attributes:
        question: what was asked.
        rankings: one a setting; that with the most candidates at the length first, then by how
            many were measured at it exactly, by launches, and by points at all lengths.
        held: where nothing was measured for the question, what the records do hold.
    """

    question: Question
    rankings: tuple[Ranking, ...]
    held: tuple[str, ...] = ()

    @property
    def ranking(self) -> Ranking | None:
        """The best covered."""
        return self.rankings[0] if self.rankings else None

    @property
    def winner(self) -> Candidate | None:
        """The winner of the best-covered ranking."""
        return self.ranking.winner if self.ranking else None

    @property
    def python(self) -> str:
        """Lines of Python that use the winner; "" without one."""
        return self.ranking.python if self.ranking else ""


# -- one setting ---------------------------------------------------------------------------------


def relative_time(candidate: Candidate, first: Candidate) -> Estimate:
    """Return how many times as long a candidate takes as another, faster one.

    That is a contrast of the cells behind both; where one of the two is interpolated, opened as
    far as its curve may bend.
    """
    latency, other = candidate.latency, first.latency
    if candidate is first:
        return Estimate(1.0, 1.0, 1.0)
    behind_other = [(-weight, cell) for weight, cell in other.terms]
    value, low, high, reason = estimate_of(contrast([*latency.terms, *behind_other]))
    low, high = low * latency.bend[0] / other.bend[1], high * latency.bend[1] / other.bend[0]
    return Estimate(value, low, high, reason)
