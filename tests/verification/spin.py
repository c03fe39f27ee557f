"""Work of known duration: a loop that ends when a clock says so.

The clock is the hardware's as the kernel counts it (``CLOCK_MONOTONIC_RAW``), which nothing
corrects; the latency is taken by another, ``CLOCK_MONOTONIC``, which network time may.
"""

from __future__ import annotations

import time


def spin(nanoseconds: int) -> None:
    """Return after so many nanoseconds, late by a reading of the clock at most."""
    if nanoseconds <= 0:
        return
    read, clock = time.clock_gettime_ns, time.CLOCK_MONOTONIC_RAW
    end = read(clock) + nanoseconds
    while read(clock) < end:
        pass
