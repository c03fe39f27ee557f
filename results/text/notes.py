"""Many notes as few: those that say the same stand together, and a list has an end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MOST = 10
"""Notes of a list that is not folded away."""

_PLACED = re.compile(r"^(?P<place>.*?):(?P<line>\d+): (?P<text>.*)$", re.DOTALL)
"""A note on a line of a file."""

_OF_RUN = re.compile(r"^run \S+: (?P<text>.*)$", re.DOTALL)


def grouped(notes: Iterable[str]) -> list[str]:
    """Return notes in their order, those that differ by nothing but a line or a run as one."""
    alike: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        of_line, of_run = _PLACED.match(note), _OF_RUN.match(note)
        if of_line:
            key = of_line["place"], of_line["text"]
        else:
            key = ("run", of_run["text"]) if of_run else ("", note)
        alike.setdefault(key, []).append(note)
    return [_one(place, same) for (place, _), same in alike.items()]


def _one(place: str, same: Sequence[str]) -> str:
    more = len(same) - 1
    if not more:
        return same[0]
    what = "run" if place == "run" else "line" if place else "time"
    return f"{same[0]} ({more:,} more {what}{'s'[: more != 1]})"


def capped(notes: Sequence[str], where: str, most: int = MOST) -> list[str]:
    """Return the first notes, and where the others are.

    Args:
        notes: all of them.
        where: follows the number of those left out: ``in the table of every case``.
        most: of them.
    """
    more = len(notes) - most
    return [*notes[:most], f"and {more:,} more, {where}"] if more > 0 else list(notes)
