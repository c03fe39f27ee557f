"""Text made for tests of what is learnt from text."""

from __future__ import annotations

import hashlib


def made_text(size: int) -> bytes:
    """Return bytes that repeat nowhere: every window of a few bytes is in one place."""
    blocks = (hashlib.sha256(b"%d" % i).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]
