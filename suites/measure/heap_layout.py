"""Make the C allocator's state that of a long-running program, and launches differ as programs do.

glibc serves blocks above a threshold from pages of their own, which every call faults in anew, and
smaller ones from the heap, whose end it gives back to the system when enough of it is free. Both
thresholds rise with the largest block that was ever freed, up to 32 MiB. A process that has just
started has them low, and what lies at the heap's end decides whether each call pays for its pages:
launches of materialised softmax at 512 tokens take 4.5 ms or 9.5 ms, at random. A program that has
loaded a model has freed such a block, and this is the state that is measured: see
docs/kernels.md.
"""

from __future__ import annotations

import random

import torch

MOST_BLOCKS = 200
LARGEST_BLOCK = 100_000
"""Bytes; below glibc's threshold for blocks outside the heap."""

LARGEST_THRESHOLD = 32 << 20
"""Bytes: above it glibc maps every block by itself, whatever was freed (mallopt(3))."""

_kept: list[bytearray] = []


def settle_heap() -> None:
    """Raise glibc's thresholds as far as they go: free one block of nearly the largest size.

    Nothing is written to it, so that it takes no memory. Other allocators are not changed by it.
    """
    torch.empty(LARGEST_THRESHOLD - (1 << 16), dtype=torch.uint8)


def stir_heap() -> None:
    """Leave a random number of blocks of random size on the heap, with holes between them.

    Launches are forked from one server, and would all inherit its heap to the byte: they would
    agree on a figure that the next run does not find (Mytkowicz et al. 2009; Curtsinger and Berger
    2013 randomise layouts for the same reason). The numbers are the system's, not the case's
    seed: the launches of two runs must not be alike.
    """
    rng = random.SystemRandom()
    sizes = (rng.randrange(1, LARGEST_BLOCK) for _ in range(rng.randrange(MOST_BLOCKS)))
    blocks = [bytearray(size) for size in sizes]
    rng.shuffle(blocks)
    _kept.extend(blocks[: len(blocks) // 2])
