"""Simulated machines: how fast they are from launch to launch, and what a launch costs there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

BACKENDS = ("full", "sdpa", "longformer", "bigbird", "linformer", "performer")

FAST_S, SLOW_S = 1.5, 54.0
"""Time constants of a machine's speed, in seconds: fitted to real runs by maximum likelihood."""
OUTLIER_SHARE, OUTLIER_SIZE = 0.03, 0.25
"""Of launches, and by how much they are slower on average: of their own, no sentinel sees it."""
BURST_SHARE, BURST_SIZE = 0.03, 0.3
"""The same of the whole machine: the sentinel sees it."""
LAYOUT_SIZE = 0.2
"""How far two layouts of memory lie apart."""

SENTINEL_S = 4e-3
PER_THOUSAND_S, FULL_PER_THOUSAND_S = 0.02, 0.10
"""What a launch takes beside its calls, by 1,024 tokens: a lean one, and what a case's first one
takes more."""
SHORT_S, WATCHED_CALLS, WATCHED_S = 0.02, 16, 0.75
"""Each timed call of a shorter arm has one before it that warms the caches. A case's first launch
finds out how long its warm-up takes: so many calls, or as long."""


@dataclass(frozen=True)
class Machine:
    """How a machine disturbs launches; all but seconds are standard deviations of a logarithm.

    Attributes:
        words: what kind of machine, for people.
        fast: of its speed from second to second.
        slow: from minute to minute.
        own: of what each backend's launches have for themselves.
        loadings: how much of the machine's speed shows in a backend; 1 = as in the sentinel.
        call: of one call in a launch.
        is_heavy: whether the own part has Student's t with 3 degrees of freedom.
        layouts: of cases, the share that has two layouts of memory, one of them slower.
        launch_s: what starting a launch takes, in seconds.
    """

    words: str
    fast: float
    slow: float
    own: Mapping[str, float]
    loadings: Mapping[str, float]
    call: float = 0.07
    is_heavy: bool = False
    layouts: float = 0.0
    launch_s: float = 0.15


def _own(full: float, sdpa: float, linformer: float, performer: float) -> Mapping[str, float]:
    return dict(zip(BACKENDS, (full, sdpa, full, full, linformer, performer), strict=True))


_LOADINGS = _own(0.4, 1.0, 1.0, 0.8)
_EVEN = _own(1.0, 1.0, 1.0, 1.0)
_A = Machine("a shared one on a usual day", 0.12, 0.056, _own(0.11, 0.025, 0.045, 0.07), _LOADINGS)

MACHINES = {
    "A": _A,
    "B": Machine("as fitted to a real run", 0.084, 0.056, _own(0.12, 0.03, 0.06, 0.08), _EVEN),
    "C": Machine("the sentinel is useless", 0.0, 0.0, _own(0.14, 0.14, 0.14, 0.14), _EVEN),
    "D": Machine("a quiet one", 0.01, 0.01, _own(0.02, 0.02, 0.02, 0.02), _EVEN, call=0.02),
    "E": Machine(
        "a bad one", 0.25, 0.08, _own(0.20, 0.08, 0.35, 0.12), _EVEN,
        is_heavy=True, layouts=0.3,
    ),
    "F": Machine("one with bursts", 0.45, 0.08, _own(0.08, 0.08, 0.08, 0.08), _EVEN),
    "A, slow to start": replace(_A, words="0.35 s a launch", launch_s=0.35),
}  # fmt: skip
"""Measured or fitted on real machines; E and F are what a shared one can become."""


class Launch(NamedTuple):
    """What a simulated launch gave, in seconds: a call's median, the sentinel's, and the whole."""

    latency: float
    sentinel: float
    wall: float


def calls_of(seconds: float) -> int:
    """Return how many calls a lean launch times, and how many it warms up with."""
    return 3 if seconds < 0.1 else 2 if seconds < 0.25 else 1


@dataclass
class Weather:
    """A machine's speed as time goes on, and the launches that it gives.

    Attributes:
        machine: whose.
        rng: the source of the draws.
    """

    machine: Machine
    rng: np.random.Generator
    _fast: float = field(init=False)
    _slow: float = field(init=False)

    def __post_init__(self) -> None:
        self._fast = self.machine.fast * self.rng.standard_normal()
        self._slow = self.machine.slow * self.rng.standard_normal()

    def _pass(self, seconds: float) -> None:
        """Let time go by."""
        for name, sd, constant in (
            ("_fast", self.machine.fast, FAST_S), ("_slow", self.machine.slow, SLOW_S),
        ):  # fmt: skip
            left = math.exp(-seconds / constant)
            fresh = sd * math.sqrt(1 - left**2) * self.rng.standard_normal()
            setattr(self, name, left * getattr(self, name) + fresh)

    def launch(
        self, backend: str, length: int, log_time: float, index: int, *, has_layouts: bool
    ) -> Launch:
        """Launch a case.

        Args:
            backend: whose.
            length: in tokens.
            log_time: the log of its true seconds.
            index: of the launch; the first one checks more, the first three take the memory.
            has_layouts: whether half of the launches have the slower layout.
        """
        rng, machine = self.rng, self.machine
        seconds = math.exp(log_time)
        calls = calls_of(seconds)
        sampling = 2 * calls * (seconds + SENTINEL_S)
        wall = machine.launch_s + PER_THOUSAND_S * length / 1024 + sampling
        wall += seconds if index < 3 else 0.0
        wall += calls * seconds if seconds < SHORT_S else 0.0
        if index == 0:
            wall += FULL_PER_THOUSAND_S * length / 1024 + 1.25 * seconds
            wall += min(WATCHED_CALLS * seconds, WATCHED_S)
        # A long launch sees the mean of the machine's fast part.
        share = sampling / FAST_S
        mean = math.sqrt(2 / share * (1 - (1 - math.exp(-share)) / share))
        speed = mean * self._fast + self._slow
        if rng.random() < BURST_SHARE:
            speed += BURST_SIZE * rng.exponential()
        sd = machine.own[backend]
        own = sd / math.sqrt(3) * rng.standard_t(3) if machine.is_heavy else (
            sd * rng.standard_normal())  # fmt: skip
        if rng.random() < OUTLIER_SHARE:
            own += OUTLIER_SIZE * rng.exponential()
        if has_layouts:
            own += LAYOUT_SIZE * float(rng.random() < 0.5)
        call, beside = machine.call / math.sqrt(calls) * rng.standard_normal(2)
        arm = log_time + machine.loadings[backend] * speed + own + call
        wall *= math.exp(speed)
        self._pass(wall)
        return Launch(
            math.exp(arm), math.exp(math.log(SENTINEL_S) + speed + beside), wall
        )  # fmt: skip

    def expected(self, backend: str, *, has_layouts: bool) -> float:
        """Return by how much the mean log of a case's launches is above its true one."""
        disturbed = OUTLIER_SHARE * OUTLIER_SIZE + LAYOUT_SIZE / 2 * has_layouts
        return disturbed + self.machine.loadings[backend] * BURST_SHARE * BURST_SIZE
