"""How far the questions of a sweep are answered, in words for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMED = 5
"""Open questions that a message names."""


def duration(value: float) -> str:
    """Write a span of time in the units that people say: ``1 h 5 min``, ``3 min 20 s``."""
    whole = round(value)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def joined(standings: Iterable[Standing]) -> Standing:
    """Return how far the questions of several machines are answered, which work at one time."""
    every = list(standings)
    needed = [one.remaining_s for one in every if one.open]
    remaining = None if None in needed else max((s for s in needed if s is not None), default=0.0)
    return Standing(
        sum(one.num_questions for one in every),
        tuple(question for one in every for question in one.open), remaining, None,
    )  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How far the questions of a sweep are answered (`results.statistics.questions`).

    Attributes:
        num_questions: all, answered ones too; 0 = the launches that come before are not done.
        open: those that are not answered, and how exactly they are known.
        remaining_s: seconds that they are foretold to take; ``None`` = not known.
        budget_s: seconds of the sweep; ``None`` = no limit.
    """

    num_questions: int
    open: tuple[str, ...]
    remaining_s: float | None
    budget_s: float | None

    def told(self, remaining_s: float | None) -> str:
        """Say what is open and how long it will take.

        Args:
            remaining_s: seconds until the end, or until the first questions are asked.
        """
        limit = (
            ""
            if self.budget_s is None
            else f" (budget {duration(self.budget_s).removesuffix(' 0 s')})"
        )
        if not self.num_questions:
            known = "not known yet" if remaining_s is None else f"about {duration(remaining_s)}"
            return f"first rounds: {known} left{limit}"
        if not self.open:
            return f"all {self.num_questions} questions answered"
        left = (
            "more processes would not answer them" if remaining_s is None
            else f"about {duration(remaining_s)} left"
        )  # fmt: skip
        return f"{len(self.open)} of {self.num_questions} questions open · {left}{limit}"

    def closing(self, going_on: str) -> str:
        """Say at the end of a sweep which questions stayed open, and how to go on.

        Args:
            going_on: the command's options that go on with the run.
        """
        if not self.open:
            return f"all {self.num_questions} questions are answered"
        more = len(self.open) - MOST_NAMED
        named = [f"  {text}" for text in self.open[:MOST_NAMED]]
        named += [f"  and {more} more"] * (more > 0)
        if self.remaining_s is None:
            ending = "more processes would not answer them: those of their cases failed"
        else:
            minutes = max(1, math.ceil(self.remaining_s / 60))
            budget = "" if self.budget_s is None else f" --budget {minutes}m"
            ending = (
                f"they would take about {duration(self.remaining_s)}: go on with the same command "
                f"and {going_on}{budget}"
            )
        return "\n".join(
            [f"{len(self.open)} of {self.num_questions} questions are open:", *named, ending]
        )
