"""The panel *your case*: what the page's script looks up, and what it shows without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from results.recommendation.quality import BETTER, WINDOW_SWAP
from results.text.method_types import CHANGES

USES: Mapping[str, str] = {
    "": "any",
    "swap": "swap into a trained model",
    "finetune": "fine-tune with it",
    "scratch": "train from scratch",
    "decode": "decode with a trained model",
}
"""What a method is wanted for, in the words of ``attnbench recommend --use``."""

HEADS: Mapping[str, str] = {
    "exact": "Fastest exact method",
    "other": "Fastest that changes the function",
}

BASES: Mapping[str, str] = {
    "measured": "", "interpolated": "between two measured lengths", "predicted": "predicted",
}  # fmt: skip

_TEXTS = ("code", "quality", "brief")
"""Of a candidate, those that recur."""

Candidate = Mapping[str, Any]


class Answer(NamedTuple):
    """One of the two answers."""

    kind: str
    head: str
    candidate: Candidate | None
    note: str


class Case(NamedTuple):
    """The panel as it stands before anything is asked.

    Attributes:
        data: for the script: the modes of `recommendation.page_answers`, texts that recur listed
            once, and the words of the panel.
        modes: to choose from: what tells the groups of the data apart.
        uses: to choose from, those that a candidate has, with their words.
        length: that is asked for first, in tokens.
        shortest: that can be asked for.
        longest: likewise.
        answers: the two.
    """

    data: Mapping[str, Any]
    modes: Sequence[str]
    uses: Mapping[str, str]
    length: int
    shortest: int
    longest: int
    answers: Sequence[Answer]


def case_of(found: Mapping[str, Any], length: int) -> Case | None:
    """Return the panel; None where no length can be asked for.

    Args:
        found: what `recommendation.page_answers` gives.
        length: to be asked for first, in tokens.
    """
    modes = [mode for mode in found["modes"] if mode["points"]]
    if not modes:
        return None
    lengths = [point["n"] for point in modes[0]["points"]]
    nearest = min(modes[0]["points"], key=lambda point: abs(point["n"] - length))
    words = {"heads": HEADS, "bases": BASES, "changes": CHANGES, "swap": WINDOW_SWAP,
             "better": BETTER}  # fmt: skip
    return Case(
        {"modes": _interned(modes), **words}, _names(modes), _uses(modes), nearest["n"],
        min(lengths), max(lengths), answers(nearest),
    )  # fmt: skip


def _names(modes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what each group of answers is called: its mode, and what of its setting is its own.

    Of settings that share a mode, what is the same in all is left out.
    """
    of_mode: dict[str, list[list[str]]] = {}
    for mode in modes:
        of_mode.setdefault(mode["mode"], []).append(mode["setting"].split(", "))
    names = []
    for mode in modes:
        settings = of_mode[mode["mode"]]
        parts = mode["setting"].split(", ")
        own = [part for part in parts if not all(part in other for other in settings)]
        names.append(", ".join([mode["mode"], *(own or parts if len(settings) > 1 else [])]))
    return names


def _uses(modes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    points = (point for mode in modes for point in mode["points"])
    had = {use for point in points for c in point["candidates"] for use in c["uses"]}
    return {use: words for use, words in USES.items() if not use or use in had}


def answers(point: Mapping[str, Any]) -> list[Answer]:
    """Return the first exact candidate and the first of the others; they come by time."""
    candidates = point["candidates"]
    exact = next((c for c in candidates if c["type"] == "exact"), None)
    other = next((c for c in candidates if c["type"] != "exact"), None)
    return [
        Answer(kind, HEADS[kind], found, point[kind])
        for kind, found in (("exact", exact), ("other", other))
    ]


def _interned(modes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the modes with texts that recur as places in a list ``texts`` of each."""
    made = []
    for mode in modes:
        texts: dict[str, int] = {}
        points = [
            {
                "n": point["n"],
                **{k: texts.setdefault(point[k], len(texts)) for k in HEADS},
                "candidates": [
                    {**c, **{k: texts.setdefault(c[k], len(texts)) for k in _TEXTS}}
                    for c in point["candidates"]
                ],
            }
            for point in mode["points"]
        ]  # fmt: skip
        made.append({**mode, "points": points, "texts": list(texts)})
    return made
