"""What a run was to hold, and what of it is missing.

A run folder may have a fourth file of JSON lines, ``plans.jsonl``: one line each time a sweep
began, with the launches it was to fill the run with and the command that began it. The last line
of a run counts. Older folders have none: then nothing is known to be missing.

A line with a precision names the launches of the first rounds alone: those beyond them, which
answer the run's questions, follow from what was measured.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from results.form import RecordError, checked, declared, list_of
from results.records.json_lines import json_lines, open_regular, short
from results.schema import PLANS
from results.text import numbers
from results.text.clean import clean

MOST_CASES = 100_000
MOST_NAMED = 5
"""Cases that a sentence names."""

_LONGEST_NAME, _LONGEST_COMMAND = 120, 4000


_CASE = declared({"id": str, "name": str, "launches": list_of(int, MOST_CASES)})
_PRECISION = Annotated[float, Meta(gt=0, le=1)]
Plan = declared(
    {"run": str, "command": list[str], "cases": list_of(_CASE, MOST_CASES)}, precision=_PRECISION
)
"""A line of ``plans.jsonl``."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run, and how it began.

    Attributes:
        run: its id.
        folder: the first that holds its plan.
        command: that began the sweep, without ``--resume`` and ``--out``; may be empty.
        precision: to which its questions were to be answered; ``None`` = it had none.
    """

    run: str
    folder: Path
    command: tuple[str, ...]
    precision: float | None

    def resume(self, budget: str = "") -> str:
        """Return the command that goes on with the run, as a shell reads it.

        Args:
            budget: its time; "" = as that which began the sweep.
        """
        words = list(self.command)
        if budget and "--budget" in words:
            place = words.index("--budget")
            del words[place : place + 2]
        more = ["--budget", budget] if budget else []
        return " ".join(map(_quoted, [*words, *more, "--resume", "--out", str(self.folder)]))


@dataclass(frozen=True, kw_only=True)
class Unfinished(Begun):
    """A run that lacks launches it was to have.

    Attributes:
        launches: how many of the planned ones are there, and how many were planned.
        cases: how many have all of theirs, and how many were planned.
        missing: names of the others, with how many launches each lacks.
    """

    launches: tuple[int, int]
    cases: tuple[int, int]
    missing: tuple[tuple[str, int], ...]

    def told(self, *, by_name: bool) -> str:
        """Say that the run is incomplete, what is missing, and how to go on.

        Args:
            by_name: call the run by its id: where there are several.
        """
        (there, planned), (whole, cases) = self.launches, self.cases
        names = [f"{name} ({lacks:,})" for name, lacks in self.missing]
        how = "" if self.command else " (with the command that started it)"
        return (
            f"{f'run {self.run[:60]}' if by_name else 'This run'} is incomplete: {there:,} of "
            f"{planned:,} processes were measured, {whole:,} of {cases:,} cases are complete. "
            f"Missing: {numbers.few(names, MOST_NAMED)}. To continue{how}: {self.resume()}"
        )


def _quoted(word: str) -> str:
    """Quote a word for a shell, which still finds the home folder."""
    return (
        f"~/{shlex.quote(word[2:])}" if word.startswith("~/") and word[2:] else shlex.quote(word)
    )


Plans = Mapping[str, tuple[Path, Mapping[str, Any]]]
"""Run to the first folder that holds its plan, and the plan that counts."""


def plans_of(paths: Sequence[Path], warnings: list[str]) -> Plans:
    """Return the plans of the runs in folders.

    Args:
        paths: run folders.
        warnings: added to: which lines cannot be read.
    """
    plans: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for folder in paths:
        latest = {plan["run"]: (folder, plan) for plan in read_plans(folder, warnings)}
        plans = {**latest, **plans}
    return plans


def begun(plans: Plans) -> tuple[Begun, ...]:
    """Return how runs began."""
    return tuple(Begun(**_shared(folder, plan)) for folder, plan in plans.values())


def unfinished(plans: Plans, records: Iterable[Mapping[str, Any]]) -> tuple[Unfinished, ...]:
    """Return the runs that lack launches.

    Args:
        plans: of the runs.
        records: all that they hold.
    """
    if not plans:
        return ()
    held = {(r["run"], r["case"]["id"], r["launch"]["index"]) for r in records}
    found = [_lacking(folder, plan, held) for folder, plan in plans.values()]
    return tuple(one for one in found if one.missing)


def _shared(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": clean(plan["run"]), "folder": folder, "precision": plan.get("precision"),
        "command": tuple(map(clean, plan["command"])),
    }  # fmt: skip


def _lacking(folder: Path, plan: Mapping[str, Any], held: set[tuple[str, str, int]]) -> Unfinished:
    run, total, missing = plan["run"], 0, []
    for case in plan["cases"]:
        planned = set(case["launches"])
        total += len(planned)
        if lacks := sum((run, case["id"], index) not in held for index in planned):
            missing.append((clean(case["name"])[:_LONGEST_NAME], lacks))
    lost, count = sum(lacks for _, lacks in missing), len(plan["cases"])
    return Unfinished(
        **_shared(folder, plan), launches=(total - lost, total),
        cases=(count - len(missing), count), missing=tuple(missing),
    )  # fmt: skip


def read_plans(folder: Path, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the plans of a folder that can be read, as they stand there."""
    file = folder / PLANS
    try:
        source = open_regular(file)
        for line in [] if source is None else json_lines(source, file, warnings):
            try:
                checked(line.data, Plan)
                if sum(map(len, line.data["command"])) > _LONGEST_COMMAND:
                    raise RecordError(f"command: expected at most {_LONGEST_COMMAND} letters")
            except RecordError as error:
                warnings.append(f"{line.place}: {short(error)}; left out")
            else:
                yield line.data
    except OSError as error:  # what is missing is not known; no number is missed
        warnings.append(f"{file}: {error.strerror}; left out")
