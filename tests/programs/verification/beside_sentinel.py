"""Dummy arms of known size, and the sentinel timed behind one of them: a process of `sentinel`.

``python -m verification.beside_sentinel KIND MEBIBYTES TURNS`` prints how much longer the sentinel
takes right behind the arm than behind calls of its own, as the log of a ratio.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from suites.measure.sentinel import call_untimed, sentinel_of, take_turn
from suites.measure.timers import HostTimer, Timed

MIB = 2**20
WIDTH = 256
"""Columns of the matrices: what is multiplied is long and narrow, so that a call of 1 GiB ends."""
REST_CALLS = 6
"""Untimed calls of the sentinel that make its caches and the processor its own again."""


def allocate(mebibytes: int) -> Callable[[], object]:
    """Return what allocates so much, writes all of it and gives it back."""
    return lambda: torch.full((mebibytes * MIB // 4,), 1.0)


def write(mebibytes: int) -> Callable[[], object]:
    """Return what writes so much that is there already."""
    held = torch.zeros(mebibytes * MIB // 4)
    return lambda: held.add_(1.0)


def matmul(mebibytes: int) -> Callable[[], object]:
    """Return a product whose input and output take so much."""
    left, right = _matrices(mebibytes // 2)
    return lambda: left @ right


def training(mebibytes: int) -> Callable[[], object]:
    """Return a step forward and back whose tensors take so much, four of them."""
    left, right = (one.requires_grad_() for one in _matrices(mebibytes // 4))

    def step() -> None:
        (left @ right).relu().sum().backward()
        left.grad = right.grad = None

    return step


def _matrices(mebibytes: int) -> tuple[Tensor, Tensor]:
    rows = max(1, mebibytes * MIB // (4 * WIDTH))
    return torch.ones(rows, WIDTH), torch.ones(WIDTH, WIDTH) / WIDTH


ARMS: Mapping[str, Callable[[int], Callable[[], object]]] = {
    "allocate": allocate, "write": write, "matmul": matmul, "training": training,
}  # fmt: skip


class Dummy:
    """A `Timed` that drops what a call returns before the next one, as an arm does."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._output: object = None

    def prepare(self) -> None:
        """Drop what the last call left."""
        self._output = None

    def call(self) -> None:
        """Do the work."""
        self._output = self._work()

    def settle(self) -> None:
        """Nothing further is kept."""


def beside(arm: Timed, turns: int) -> float:
    """Return the log of the sentinel's time behind `arm` over that at rest.

    Both are taken as in every launch, within some 50 ms, so that the machine is the same for both:
    the median of the logs over the turns.
    """
    timer, sentinel, nothing = HostTimer(), sentinel_of("cpu"), Dummy(lambda: None)
    logs: list[float] = []
    for _ in range(turns):
        timer.sample(arm)
        behind = take_turn(nothing, timer, sentinel, usual_s=0.0).sentinel
        for _ in range(REST_CALLS):
            call_untimed(sentinel)
        at_rest = take_turn(nothing, timer, sentinel, usual_s=0.0).sentinel
        if behind is None or at_rest is None:
            raise AssertionError("take_turn: expected times of the sentinel, got none")
        logs.append(math.log(behind / at_rest))
    return median(logs)


def main() -> None:
    """Measure one arm in this process, and print the log."""
    kind, mebibytes, turns = sys.argv[1:]
    work = ARMS[kind](int(mebibytes))
    with torch.inference_mode(kind != "training"):
        sys.stdout.write(f"{beside(Dummy(work), int(turns))!r}\n")


if __name__ == "__main__":
    main()
