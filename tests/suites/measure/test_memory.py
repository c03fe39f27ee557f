from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch

from suites.measure.memory import peak_memory

MIB = 2**20

pytestmark = pytest.mark.serial


def filled(mib: int) -> torch.Tensor:
    return torch.ones(mib * MIB // 4)


def close(measured: int, expected: int) -> bool:
    """Within 1 % or 1 MiB, whichever is more."""
    return abs(measured - expected) <= max(MIB, expected / 100)


@pytest.mark.parametrize("mib", [1, 8, 33, 128, 300])
def test_result_is_counted(mib: int):
    filled(mib)  # what malloc keeps of it must not hide the next one
    assert close(peak_memory(lambda: filled(mib), "cpu"), mib * MIB)


def test_temporaries_are_counted_at_their_peak():
    def call() -> torch.Tensor:
        first = filled(64)
        second = first + 1  # 128 MiB at once
        del first
        return second[:1].clone()

    call()  # pages in the code that it runs
    assert close(peak_memory(call, "cpu"), 128 * MIB)


def test_what_is_there_before_is_not_counted():
    held = filled(200)
    held[:1].clone()
    assert close(peak_memory(lambda: held[: 16 * MIB].clone(), "cpu"), 64 * MIB)


def test_order_of_the_measurements_does_not_matter():
    large = peak_memory(lambda: filled(256), "cpu")
    small = peak_memory(lambda: filled(4), "cpu")
    assert close(small, 4 * MIB)
    assert close(large, 256 * MIB)


def test_garbage_of_before_is_not_counted():
    class Cycle:
        pass

    cycle = Cycle()
    cycle.me, cycle.data = cycle, filled(100)  # type: ignore[attr-defined]
    del cycle
    try:
        gc.disable()
        assert close(peak_memory(lambda: filled(32), "cpu"), 32 * MIB)
    finally:
        gc.enable()


def test_memory_that_is_reserved_and_not_touched_does_not_count():
    reserve: Callable[[], torch.Tensor] = lambda: torch.empty(256 * MIB // 4)  # noqa: E731
    assert peak_memory(reserve, "cpu") < 2 * MIB
