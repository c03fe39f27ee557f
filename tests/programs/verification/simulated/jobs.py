"""Simulations over two processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

JOBS = 2
T = TypeVar("T")


def run_all(
    function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], *, jobs: int = JOBS
) -> Iterator[T]:
    """Call `function` with each of `arguments`; yield what it returns, in their order.

    Args:
        function: of a module, so that another process finds it.
        arguments: of each call.
        jobs: processes; 1 = this one.
    """
    if jobs == 1:
        yield from (function(*given) for given in arguments)
        return
    # A fork would copy the threads of libraries half.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for started in [pool.submit(function, *given) for given in arguments]:
            yield started.result()
