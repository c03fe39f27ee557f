"""Which attention to use at a length, from measured records: two answers, never a guess.

A candidate is a backend with its options. One ranking holds the candidates of one setting
(`case_columns.SETTING`: machine, environment, shape, threads, precision …), by latency; times of
two settings never stand in one. Its answers are the fastest exact method and the fastest of those
that compute something else and whose quality does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from results.recommendation.interpolation import Reading
from results.recommendation.quality import Quality, Use
from results.recommendation.question import Question
from results.recommendation.snippet import python_lines
from results.statistics.intervals import Estimate
from results.statistics.launches import contrast, estimate_of
from results.text.labels import label
from results.text.method_types import MethodType

SDPA = "sdpa"
"""The exact method that is taken where others are no faster: it needs the least memory."""

UNKNOWN = Estimate(math.nan, math.nan, math.nan)

SAME_RATIO = 1.0
"""Two latencies whose ratio's interval holds this are statistically tied."""


@dataclass(frozen=True)
class Candidate:
    """A backend with its options, and what is known of it at the length.

    Attributes:
        backend: its name.
        options: as the command line writes them; "" = its defaults.
        latency: s, over launches.
        memory: B: peak above the inputs, in mode decode the state.
        quality: what is known of what it computes.
        uses: each with the reason why it does not serve it; "" = it does.
        reasons: why it is no answer: ``latency``, a limit's name, ``use`` or ``quality``, to one
            sentence; empty = it may be one.
        speedup: the latency of the exact baseline / its own, with the interval.
    """

    backend: str
    options: str
    latency: Reading
    memory: Reading
    quality: Quality
    uses: Mapping[Use, str]
    reasons: Mapping[str, str]
    speedup: Estimate = UNKNOWN

    @property
    def label(self) -> str:
        """The candidate as the command line writes it."""
        return label(self.backend, self.options)

    @property
    def type(self) -> MethodType:
        """What it computes."""
        return self.quality.type

    @property
    def is_exact(self) -> bool:
        """Whether it computes softmax attention."""
        return self.type == "exact"

    @property
    def qualifies(self) -> bool:
        """Whether it has a time at the length, meets every limit, and its quality does."""
        return not self.reasons

    @property
    def is_untested(self) -> bool:
        """Whether all that it lacks is a measurement of its quality."""
        return not self.reasons.keys() - {"quality", "use"} and (
            bool(self.reasons) and self.quality.verdict == "unknown"
        )

    @property
    def is_cut_short(self) -> bool:
        """Whether the warm-up behind its latency was: it may be faster than said."""
        return self.latency.converged is False


@dataclass(frozen=True)
class Ranking:
    """The candidates of one setting.

    Attributes:
        setting: values of `case_columns.SETTING`.
        candidates: by latency, the fastest first; what has none last.
        question: what was asked.
        lengths: the lengths at which a time was measured in this setting, in tokens.
    """

    setting: Mapping[str, object]
    candidates: tuple[Candidate, ...]
    question: Question
    lengths: tuple[int, ...]

    @property
    def qualified(self) -> tuple[Candidate, ...]:
        """Those that may be an answer."""
        return tuple(c for c in self.candidates if c.qualifies)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """Those that may not."""
        return tuple(c for c in self.candidates if not c.qualifies)

    @property
    def exact(self) -> Candidate | None:
        """The first answer: the fastest exact method, of statistically tied ones `sdpa`."""
        exact = [c for c in self.qualified if c.is_exact]
        usual = [c for c in exact if c.backend == SDPA and may_be_equal(c, exact[0])]
        return next(iter([*usual, *exact]), None)

    @property
    def baseline(self) -> Candidate | None:
        """What a speed-up is against: the first answer, else the fastest exact one with a time."""
        timed = (c for c in self.candidates if c.is_exact and c.latency.known)
        return self.exact or next(timed, None)

    @property
    def other(self) -> Candidate | None:
        """The second answer: the fastest that computes something else."""
        return next((c for c in self.qualified if not c.is_exact), None)

    @property
    def untested(self) -> Candidate | None:
        """The fastest that lacks nothing but a measurement of its quality."""
        return next((c for c in self.candidates if c.is_untested), None)

    @property
    def answers(self) -> tuple[Candidate, ...]:
        """Both answers, those that there are."""
        return tuple(c for c in (self.exact, self.other) if c is not None)

    def tied(self, answer: Candidate) -> tuple[Candidate, ...]:
        """Return those that qualify, are of an answer's kind and may be as fast as it."""
        return tuple(
            c for c in self.qualified
            if c is not answer and c.is_exact == answer.is_exact and may_be_equal(c, answer)
        )  # fmt: skip

    def python(self, answer: Candidate) -> str:
        """Return lines of Python that use an answer."""
        return python_lines(
            answer.backend, answer.options, setting=self.setting, mode=self.question.mode,
            seq_len=self.question.seq_len,
        )  # fmt: skip


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
    def exact(self) -> Candidate | None:
        """The fastest exact method of the best-covered ranking."""
        return self.ranking.exact if self.ranking else None

    @property
    def other(self) -> Candidate | None:
        """The fastest that computes something else, of the best-covered ranking."""
        return self.ranking.other if self.ranking else None


def ratio(top: Candidate, bottom: Candidate) -> Estimate:
    """Return how many times as long a candidate takes as another.

    That is a contrast of the cells behind both; where a time was not measured, opened as far as
    its curve may bend.
    """
    if top is bottom:
        return Estimate(1.0, 1.0, 1.0)
    one, other = top.latency, bottom.latency
    if not (one.terms and other.terms):
        return UNKNOWN
    value, low, high, reason = estimate_of(
        contrast([*one.terms, *((-weight, cell) for weight, cell in other.terms)])
    )
    low, high = low * one.bend[0] / other.bend[1], high * one.bend[1] / other.bend[0]
    return Estimate(value, low, high, reason)


def may_be_equal(one: Candidate, other: Candidate) -> bool:
    """Whether two times are statistically tied: their ratio may be 1, or has no interval."""
    found = ratio(one, other)
    return not found.has_interval or found.low <= SAME_RATIO <= found.high
