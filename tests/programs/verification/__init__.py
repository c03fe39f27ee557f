"""The method's promises, measured by injecting what they promise to survive.

`make verify-method` runs them all (`python -m verification`, with tests/programs and tests/helpers
on the path) and writes what it found. Each promise is one module of this package: its docstring
says what is promised, how it is tested and what counts as a failure; ``measure(scale, report)``
returns a `Measured`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Scale = Literal["full", "short"]
"""`full` is what the documented rates come from; `short` is what CI runs: the same, with less."""

Report = Callable[[str], None]
"""Told in a line what is being done."""

PROMISES = (
    "exponents",
    "intervals",
    "design",
    "split_halves",
    "ground_truth",
    "harness_cost",
    "memory",
    "memory_cuda",
    "sentinel",
    "operations",
    "repeated_runs",
    "time_to_answer",
    "alarms",
    "backends",
    "fewer_launches",
    "power",
    "faults",
    "fuzz",
)
"""Modules of this package, in the order they run and are shown."""

IN_PIECES = ("repeated_runs", "time_to_answer")
"""Those of hours: they keep what is done, and another call goes on. Their ``measure`` takes how
much of it is to be done as a third argument."""


@dataclass(frozen=True)
class Measured:
    """What the tries of one promise gave.

    Attributes:
        figure: what `rate` is, in words; of several settings the worst one's.
        tried: how many tries were made.
        failed: how many of them broke what is promised of each. A promise about a rate, as 93 %
            coverage, allows some.
        rate: the figure that is held against `limit`.
        bound: the one-sided 95 % Clopper-Pearson bound of `rate`, on the side of the limit; where
            the figure is no share, or the tries are no sample, ``None``.
        limit: what is promised of `rate`.
        side: on which side of the limit it must be; the limit itself keeps the promise.
        passed: whether the promise was kept; ``None`` = could not be tried here, see `reason`.
        details: rows of a table, each with the same keys.
        unit: of `rate` and `limit`: ``1`` = a share, or s, B.
        reason: why it could not be tried, or what went wrong.
        name: of the module; the runner fills it in, as the next two.
        promise: the first paragraph of the module's docstring.
        seconds: how long it took.
    """

    figure: str
    tried: int
    failed: int
    rate: float | None
    bound: float | None
    limit: float | None
    side: Literal["at least", "at most"]
    passed: bool | None
    details: list[Mapping[str, Any]] = field(default_factory=list)
    unit: str = "1"
    reason: str = ""
    name: str = ""
    promise: str = ""
    seconds: float = 0.0


def not_tried(reason: str) -> Measured:
    """Return what stands for a promise that cannot be tried on this machine."""
    return Measured("", 0, 0, None, None, None, "at most", None, reason=reason)


def broken(reason: str) -> Measured:
    """Return what stands for a promise whose test could not be run to its end."""
    return Measured("", 0, 0, None, None, None, "at most", False, reason=reason)
