"""Give every launch a heap of its own, so that launches differ as the processes of users do.

Cases are forked from one server, and would all inherit its heap to the byte. What lies where
decides more than it should: whether glibc gives freed memory back to the system after each call,
and so whether the next call pays for the pages anew, hangs on what lies at the heap's end. Of
materialised softmax at 256 tokens that is a factor of two, the same in all launches of a server
and another in the next server: three launches would agree on a figure that the next run does not
find (Mytkowicz et al. 2009; Curtsinger and Berger 2013 randomise layouts for the same reason).
"""

from __future__ import annotations

import random

MOST_BLOCKS = 200
LARGEST_BLOCK = 100_000
"""Bytes; below glibc's threshold for blocks outside the heap."""

_kept: list[bytearray] = []


def stir_heap() -> None:
    """Leave a random number of blocks of random size on the heap, with holes between them.

    The numbers are the system's, not the case's seed: the launches of two runs must not be alike.
    """
    rng = random.SystemRandom()
    sizes = (rng.randrange(1, LARGEST_BLOCK) for _ in range(rng.randrange(MOST_BLOCKS)))
    blocks = [bytearray(size) for size in sizes]
    rng.shuffle(blocks)
    _kept.extend(blocks[: len(blocks) // 2])
