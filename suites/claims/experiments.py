"""Find the experiment of a claim, and what an experiment is given and gives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import TypeVar

import torch
from torch import Tensor, nn

from attention.base import UnsupportedError
from suites.measure.clock import sample_in_turn
from suites.measure.memory import peak_memory
from suites.measure.roofs import Repeated
from suites.measure.timers import timer_for

K = TypeVar("K", bound=Hashable)

MODULES = ("costs", "invariants", "learning", "sequential", "signals")


@dataclass(frozen=True)
class Found:
    """What an experiment found.

    Attributes:
        values: by the names that the claim's questions have.
        axes: what the lines show, x and y, with units; empty without lines.
        lines: for the claim's figure: by label, points ``(x, y)``.
    """

    values: Mapping[str, float]
    axes: tuple[str, str] = ("", "")
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Lab:
    """What an experiment works with.

    Attributes:
        seed: of all that it draws.
        device: where it works.
        threads: that it may use.
        budget_s: sampling time of what it times, a call.
    """

    seed: int
    device: str
    threads: int
    budget_s: float

    def draw(self, *shape: int, scale: float = 1.0, offset: int = 0) -> Tensor:
        """Draw normal numbers; another `offset` gives others."""
        generator = torch.Generator().manual_seed(1000 * self.seed + offset)
        return (scale * torch.randn(shape, generator=generator)).to(self.device)

    def qkv(self, heads: int, tokens: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw queries, keys and values ``[1, heads, tokens, dim]``."""
        q, k, v = (self.draw(1, heads, tokens, dim, offset=i) for i in range(3))
        return q, k, v

    def ids(self, *shape: int, vocab_size: int, offset: int = 0) -> Tensor:
        """Draw token ids."""
        generator = torch.Generator().manual_seed(1000 * self.seed + offset)
        return torch.randint(vocab_size, shape, generator=generator).to(self.device)

    def place(self, module: nn.Module) -> nn.Module:
        """Bring a module to the device."""
        return module.to(self.device)

    def seeded(self) -> None:
        """Seed torch's own generator, which constructors draw from."""
        torch.manual_seed(self.seed)

    def seconds(self, calls: Mapping[K, Callable[[], object]]) -> dict[K, float]:
        """Time calls in alternation; return the medians of their samples.

        Raises:
            RuntimeError: if one still became faster when the time was over.
        """
        arms = [Repeated(call) for call in calls.values()]
        with torch.no_grad():
            timings = sample_in_turn(
                arms, timer_for(self.device), budget_s=self.budget_s, seed=self.seed
            )
        taken = dict(zip(calls, timings, strict=True))
        if late := [str(key) for key, timing in taken.items() if not timing.warm_up.converged]:
            raise RuntimeError(
                f"{', '.join(late)}: the warm-up was cut short; a longer "
                "--case-timeout prevents that"
            )
        return {key: median(timing.samples) for key, timing in taken.items()}

    def bytes(self, call: Callable[[], object]) -> int:
        """Measure the peak memory that a call adds."""
        with torch.no_grad():
            call()
            return peak_memory(call, self.device)


Experiment = Callable[[Lab], Found]

_experiments: dict[str, Experiment] = {}


def experiment(claim: str) -> Callable[[Experiment], Experiment]:
    """Make a function the experiment of a claim, by the claim's id.

    Raises:
        ValueError: if the claim has one already.
    """

    def add(function: Experiment) -> Experiment:
        if claim in _experiments:
            raise ValueError(f"claim: {claim} has an experiment already")
        _experiments[claim] = function
        return function

    return add


def experiments() -> Mapping[str, Experiment]:
    """Return the experiments by the ids of their claims."""
    for module in MODULES:
        importlib.import_module(f"suites.claims.{module}")
    return _experiments


def find(claim: str) -> Experiment:
    """Return the experiment of a claim.

    Raises:
        ValueError: if there is none.
    """
    by_claim = experiments()
    if claim not in by_claim:
        raise ValueError(f"claim: expected one of {', '.join(sorted(by_claim))}, got {claim!r}")
    return by_claim[claim]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the exponent of y in x: the slope of a least-squares line through the logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    return linear_regression(*zip(*logs, strict=True)).slope


def end_ratio(points: Sequence[tuple[float, float]]) -> float:
    """Return how many times the last point's y is the first one's."""
    return points[-1][1] / points[0][1]


def several_threads(lab: Lab) -> None:
    """Refuse a machine, or a setting, of one thread.

    Raises:
        UnsupportedError: if there is but one.
    """
    if lab.device == "cpu" and lab.threads < 2:
        raise UnsupportedError("threads: it compares one thread with several; got 1")
