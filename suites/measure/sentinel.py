"""The sentinel: a small piece of work that never changes, timed in turn with every timed call.

It is of this project's own making and computes nothing that a backend does: a faster backend
leaves it alone, so that what changes in it is the machine. Each sample of an arm has one time of
the sentinel beside it (``metrics.latency.sentinel``), and the report lets the data say how much of
an arm's scatter that explains.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

import torch

from suites.measure.timers import HostTimer, Timed, Timer

CHAINS: Mapping[str, tuple[int, int]] = {"cpu": (384, 6), "cuda": (2048, 2)}
"""Rows of the sentinel's square matrices, and its products, by the type of the device: some 4 ms
on two processors, within 2 MB, and some 0.3 to 1 ms on a GPU."""

FACTOR_SCALE = 0.3
"""Of the constant factor: the numbers of the chain stay near 1, however often it is called."""

SHORT_S, LONG_S = 0.02, 0.15
"""An arm's call below the first has the caches warmed by one more, untimed. One from the second on
sees more of the machine's life than the sentinel does: that is then repeated around it."""

AROUND_S = 0.02
"""Seconds of the sentinel before a long call, and as many after it."""


class Sentinel:
    """A chain of products and exponentials: a `suites.measure.timers.Timed`.

    All that a call writes to is there before: what an allocation costs differs between processes
    (`suites.measure.heap_layout`), and would hide what the machine does.

    Args:
        device: type of the device.
    """

    def __init__(self, device: str) -> None:
        rows, self._products = CHAINS[device]
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode(False):  # written to with and without inference mode
            factor = torch.empty(rows, rows).normal_(generator=generator)
            self._factor = factor.mul_(FACTOR_SCALE / math.sqrt(rows)).to(device)
            self.state = torch.ones_like(self._factor)
            self._product = torch.zeros_like(self._factor)

    def prepare(self) -> None:
        """Nothing is left to drop."""

    def call(self) -> None:
        """Multiply, exponentiate, and again."""
        for _ in range(self._products):
            torch.mm(self.state, self._factor, out=self._product)
            torch.exp(self._product, out=self.state)

    def settle(self) -> None:
        """Nothing further is kept."""


@functools.cache
def sentinel_of(device: str) -> Sentinel:
    """Return this process's sentinel, called once.

    Its memory stays until the process ends: given back, it would change the heap of the arms.
    """
    sentinel = Sentinel(device)
    sentinel.call()
    return sentinel


class Turn(NamedTuple):
    """A sample of an arm, and what was called around it.

    Attributes:
        seconds: of the arm's timed call.
        sentinel: seconds of a call of the sentinel beside it; ``None`` = there is none.
        spent: seconds of all calls; those that are not timed count as those that are.
        calls: of the arm.
    """

    seconds: float
    sentinel: float | None
    spent: float
    calls: int


def take_turn(arm: Timed, timer: Timer, companion: Timed | None, *, usual_s: float) -> Turn:
    """Take a sample of an arm, with a companion timed beside it.

    An untimed call of the companion comes first: its own time must not hang on what the arm left
    in the caches. An untimed call of a short arm follows it, for the same reason.

    Args:
        arm: what is measured.
        timer: takes both samples.
        companion: the sentinel; ``None`` = the arm is timed alone.
        usual_s: seconds of a call of the arm, as far as known.
    """
    if companion is None:
        seconds = timer.sample(arm)
        return Turn(seconds, None, seconds, 1)
    is_long = usual_s >= LONG_S
    is_short = usual_s < SHORT_S and timer.cache == HostTimer.cache
    call_untimed(companion)
    beside = [timer.sample(companion)]
    count = max(1, math.ceil(AROUND_S / max(beside[0], 1e-6))) if is_long else 1
    beside += [timer.sample(companion) for _ in range(count - 1)]
    if is_short:
        call_untimed(arm)
    seconds = timer.sample(arm)
    if is_long:
        call_untimed(companion)
        beside += [timer.sample(companion) for _ in range(count)]
    around = sum(beside) + (1 + is_long) * beside[0]
    return Turn(seconds, fmean(beside), around + (1 + is_short) * seconds, 1 + is_short)


def call_untimed(timed: Timed) -> None:
    """Call once, and keep no time."""
    timed.prepare()
    timed.call()
    timed.settle()
