"""Work of known duration: a loop that ends when a clock says so, and says how long it took.

The clock is the hardware's as the kernel counts it (``CLOCK_MONOTONIC_RAW``), which nothing
corrects; the latency is taken by another, ``CLOCK_MONOTONIC``, which network time may.
"""

from __future__ import annotations

import time


def spin(nanoseconds: int) -> int:
    """Spin for so many nanoseconds; return how many it became, by the same clock.

    It ends late by a reading of the clock; later, if the processor was taken away meanwhile.
    """
    if nanoseconds <= 0:
        return 0
    read, clock = time.clock_gettime_ns, time.CLOCK_MONOTONIC_RAW
    start = now = read(clock)
    end = start + nanoseconds
    while now < end:
        now = read(clock)
    return now - start
