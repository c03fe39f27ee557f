"""The machine's peaks, measured in the same run as the cases they limit.

Matrix products, exponentials and memory traffic, each the best of several shapes, by the same
clock as the cases; and the clock's own cost, as the latency of a call that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from attention.kernels.onednn import applies, full_rate, mark
from suites.measure.clock import Timing, sample_in_turn
from suites.measure.timers import Timer

MATRIX_SHAPES = (
    (1, 1024, 1024, 1024),
    (1, 2048, 2048, 2048),
    (8, 512, 64, 512),
    (8, 512, 512, 64),
    (8, 1024, 256, 64),
    (32, 256, 256, 256),
)
"""Products ``[batch, n, k] @ [batch, k, m]`` as (batch, n, k, m): square, and attention's."""

LARGE_MATRIX_SHAPES = ((1, 4096, 4096, 4096), (1, 8192, 8192, 8192), (64, 2048, 2048, 64))
"""Further ones on a GPU, which the others do not fill."""

EXP_SIZES = {"cpu": (2**15, 2**17, 2**20), "cuda": (2**20, 2**24, 2**27)}
"""Elements of an exponential. On a CPU they lie within the caches, where a fused kernel computes
them; a GPU is filled by many only. There the bytes bound them, so that what a fused kernel reaches
may be above this peak."""

SOFTMAX_COLUMNS = 2048
"""Row length of a softmax. Which of torch's exponentials is fastest differs between machines:
``exp``, ``exp2``, or that within its softmax, all of which is then counted as exponentials."""

COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
"""Bytes of a copied buffer: well above the last-level cache."""


class Repeated:
    """A call that leaves nothing behind."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def prepare(self) -> None:
        """Nothing is left to drop."""

    def call(self) -> None:
        """Do the work."""
        self._work()

    def settle(self) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Peak:
    """A rate and the shape that reached it.

    Attributes:
        rates: one a sample, in operations or bytes per second.
        shape: what reached the highest median.
    """

    rates: list[float]
    shape: str


def empty_latency(timer: Timer, *, budget_s: float, seed: int) -> Timing:
    """Time a call that does nothing: what the clock adds to every sample."""
    return sample_in_turn([Repeated(lambda: None)], timer, budget_s=budget_s, seed=seed)[0]


def matmul_rates(
    dtype: torch.dtype, device: str, timer: Timer, *, budget_s: float, seed: int
) -> tuple[Peak, Peak]:
    """Measure matrix products; a multiply-add counts two operations.

    Where the backends take another library for float32 than torch does by itself, both are tried.

    Returns:
        the peak of all; that of torch by itself.
    """
    candidates, faster = [], []
    shapes = MATRIX_SHAPES + (() if device == "cpu" else LARGE_MATRIX_SHAPES)
    for batch, n, k, m in shapes:
        left = torch.randn(batch, n, k, device=device).to(dtype)
        right = torch.randn(batch, k, m, device=device).to(dtype)
        out = torch.empty(batch, n, m, dtype=dtype, device=device)
        label = f"{batch} x [{n}, {k}] @ [{k}, {m}]"
        work = _product(left, right, out)
        candidates.append((label, 2 * batch * n * k * m, work))
        if applies(left):
            faster.append(
                (f"{label}{mark(left)}", 2 * batch * n * k * m, _at_full_rate(work, left))
            )
    peaks = _peaks([*candidates, *faster], timer, budget_s=budget_s, seed=seed)
    return _best(peaks), _best(peaks[: len(candidates)])


def exp_rate(dtype: torch.dtype, device: str, timer: Timer, *, budget_s: float, seed: int) -> Peak:
    """Measure exponentials, one operation each."""
    candidates = []
    for size in EXP_SIZES[device]:
        values = torch.randn(size, device=device).to(dtype)
        out = torch.empty_like(values)
        for function in (torch.exp, torch.exp2):
            label = f"{function.__name__} of {size} elements"
            candidates.append((label, size, _exponential(function, values, out)))
        if size >= SOFTMAX_COLUMNS:
            rows = values.view(-1, SOFTMAX_COLUMNS)
            work = _softmax(rows, out.view_as(rows))
            candidates.append((f"softmax of {tuple(rows.shape)}", size, work))
    return _best(_peaks(candidates, timer, budget_s=budget_s, seed=seed))


def bandwidth(device: str, timer: Timer, *, budget_s: float, seed: int) -> Peak:
    """Measure a copy; each byte counts twice, once read and once written."""
    size = COPY_BYTES[device]
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copy = (f"copy of {size >> 20} MiB", 2 * size, lambda: target.copy_(source))
    return _best(_peaks([copy], timer, budget_s=budget_s, seed=seed))


def _at_full_rate(work: Callable[[], object], like: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with full_rate(like):
            work()

    return run


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.matmul(left, right, out=out)


def _exponential(
    function: Callable[..., torch.Tensor], values: torch.Tensor, out: torch.Tensor
) -> Callable[[], object]:
    return lambda: function(values, out=out)


def _softmax(rows: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.softmax(rows, dim=-1, out=out)


def _peaks(
    candidates: Sequence[tuple[str, int, Callable[[], object]]],
    timer: Timer,
    *,
    budget_s: float,
    seed: int,
) -> list[Peak]:
    """Time all shapes in alternation, the budget shared."""
    share = budget_s / len(candidates)
    works = [Repeated(work) for _, _, work in candidates]
    timings = sample_in_turn(works, timer, budget_s=share, seed=seed)
    return [
        Peak([amount / max(s, 1e-9) for s in timing.samples], label)
        for (label, amount, _), timing in zip(candidates, timings, strict=True)
    ]


def _best(peaks: Sequence[Peak]) -> Peak:
    """Return the one of the highest median."""
    return max(peaks, key=lambda p: sorted(p.rates)[len(p.rates) // 2])
