"""Read what the command line writes as text: a backend with options, a shard, a span of time."""

from __future__ import annotations

import math
import re
from typing import Any

from results.schema import IDENTITY, Arm, parse_option

LARGEST_LIMIT_S = 1e6
"""The most that ``--case-timeout`` takes."""


def parse_backend(text: str) -> Arm:
    """Read ``NAME[:key=value,…]``; a value ``a+b+c`` is a list.

    Values are typed by their literal form: whole number, number, ``true``, ``false``, ``none``,
    else text.

    Raises:
        ValueError: if the text does not have this form.
    """
    name, colon, rest = text.partition(":")
    form = "expected NAME or NAME:key=value,…"
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"{form}, got {text!r}")
    if name == IDENTITY:
        raise ValueError(f"{IDENTITY!r} is the baseline that layer and block cases hold anyway")
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not key.isidentifier() or not equals or not value:
            raise ValueError(f"{form}, got {part!r} in {text!r}")
        if key in options:
            raise ValueError(f"option {key!r} stands twice in {text!r}")
        options[key] = parse_option(value)
    return Arm(name, options)


def parse_backends(text: str) -> tuple[Arm, ...]:
    """Read several as `parse_backend` does, separated by commas: ``full,longformer:window=64``.

    What has an equals sign, and no colon before it, is a further option of the one before.

    Raises:
        ValueError: if the text does not have this form.
    """
    written: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if written and "=" in part.partition(":")[0]:
            written[-1] += f",{part}"
        else:
            written.append(part)
    return tuple(map(parse_backend, dict.fromkeys(written)))


_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_span(text: str) -> float:
    """Read a span of time, ``1h30m``, ``4m`` or ``90`` and ``90s``, as seconds.

    Raises:
        ValueError: if the text does not have this form, or is nothing.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if (span := 3600 * hours + 60 * minutes + seconds) > 0:
        return span
    raise ValueError(f"expected a span of time as 4m, 1h30m or 90s, got {text!r}")


def parse_precision(text: str) -> float:
    """Read a share in percent, whose sign may be left out: ``10%``.

    Returns:
        A fraction.

    Raises:
        ValueError: if the text does not have this form.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise ValueError(f"expected a share in percent, above 0 to 100, as 10%, got {text!r}")
    return percent / 100


def parse_threshold(text: str) -> tuple[str, float]:
    """Read ``[NAME[:key=value,…]=]PERCENT``, the percent sign may stand: ``sdpa=5%``.

    Returns:
        The backend, "" for all, and a fraction.

    Raises:
        ValueError: if the text does not have this form.
    """
    backend, equals, number = text.rpartition("=")
    try:
        percent = float(number.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 900 or (equals and not backend):
        raise ValueError(f"expected PERCENT or BACKEND=PERCENT, above 0 to 900, got {text!r}")
    return backend, percent / 100


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``i/n`` with 1 ≤ i ≤ n.

    Raises:
        ValueError: if the text does not have this form.
    """
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ValueError(f"expected i/n with i from 1 to n, e.g. 1/4, got {text!r}")
