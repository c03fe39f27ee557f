"""Amounts of memory as people write them: ``4GB``, ``4GiB``, ``500MB``, or bytes."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip

_FORM = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,12})?) ?([A-Za-z]{0,3})", re.ASCII)

ACCEPTED = "an amount above 0 such as 4GB, 4GiB, 500MB or 123456 (bytes)"


def parse_size(text: str) -> int:
    """Return the bytes of an amount; GB = 10⁹ and GiB = 2³⁰.

    Raises:
        ValueError: if the text is no such amount, or less than a byte.
    """
    match = _FORM.fullmatch(text.strip())
    factor = _UNITS.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(f"expected {ACCEPTED}, got {text[:60]!r}")
    size = int(Decimal(match[1]) * factor)
    if size < 1:
        raise ValueError(f"expected {ACCEPTED}, got {text[:60]!r}")
    return size


def write_size(size: int) -> str:
    """Write bytes so that `parse_size` reads the same: 4100000000 → 4.1GB."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= _UNITS[unit]:
            return f"{(Decimal(size) / _UNITS[unit]).normalize():f}{unit}"
    return f"{size}B"
